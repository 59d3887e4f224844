//! Guards restore what was, in every order and after a panic, and threads take turns.

use assay_variables::{ALL, Guard, Kind, REQUIRE_ISA, SEED, SIGNING_KEY, STRICT, recorded};
use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

const A: &str = "ASSAY_TEST_A";
const B: &str = "ASSAY_TEST_B";

fn values() -> [Option<String>; 2] {
    [A, B].map(|name| env::var(name).ok())
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn variables_come_back_when_the_guard_goes() {
    let outside = Guard::new(&[(A, Some("before")), (B, None)]);
    let guard = Guard::new(&[(A, None), (B, Some("1"))]);
    assert_eq!(values(), [None, some("1")]);
    drop(guard);
    assert_eq!(values(), [some("before"), None]);
    // The same variable twice: the first value before is the one that counts.
    drop(Guard::new(&[(A, Some("1")), (A, Some("2"))]));
    assert_eq!(values(), [some("before"), None]);
    drop(outside);
    let _turn = Guard::new(&[]);
    assert_eq!(values(), [None, None], "nothing leaks");
}

#[test]
fn variables_come_back_after_a_panic_and_the_next_guard_works() {
    let _turn = Guard::new(&[]);
    let panicked = thread::scope(|_| {
        catch_unwind(AssertUnwindSafe(|| {
            let _outer = Guard::new(&[(A, Some("1"))]);
            let _inner = Guard::new(&[(A, Some("2")), (B, Some("2"))]);
            panic!("a test that fails");
        }))
    });
    assert!(panicked.is_err());
    assert_eq!(values(), [None, None]);
    let _guard = Guard::new(&[(A, Some("3"))]);
    assert_eq!(values(), [some("3"), None]);
}

#[test]
fn a_thread_that_panics_gives_its_turn_away() {
    let died = thread::spawn(|| {
        let _guard = Guard::new(&[(A, Some("1"))]);
        panic!("a test that fails");
    });
    assert!(died.join().is_err());
    let _guard = Guard::new(&[]);
    assert_eq!(values(), [None, None]);
}

#[test]
fn what_cannot_be_set_is_refused_before_anything_is_changed() {
    let _turn = Guard::new(&[]);
    for (name, value) in [("", "1"), ("A=B", "1"), ("A\0", "1"), (B, "1\0")] {
        let refused = catch_unwind(|| Guard::new(&[(A, Some("1")), (name, Some(value))]));
        assert!(refused.is_err() && values() == [None, None], "{name:?}");
    }
}

#[test]
fn guards_nest_on_one_thread_and_are_undone_in_reverse_whatever_goes_first() {
    let _turn = Guard::new(&[]);
    let (outer, middle, inner) = (
        Guard::new(&[(A, Some("1"))]),
        Guard::new(&[(A, Some("2")), (B, Some("2"))]),
        Guard::new(&[(A, None)]),
    );
    assert_eq!(values(), [None, some("2")]);
    drop(outer);
    drop(middle);
    assert_eq!(values(), [None, some("2")], "the inner one is still there");
    drop(inner);
    assert_eq!(values(), [None, None]);
}

#[test]
fn threads_take_turns() {
    static INSIDE: AtomicUsize = AtomicUsize::new(0);
    let one = |number: usize| {
        for turn in 0..50 {
            let value = format!("{number} {turn}");
            let guard = Guard::new(&[(A, Some(&value))]);
            let _nested = Guard::new(&[(B, Some(&value))]);
            assert_eq!(INSIDE.fetch_add(1, Ordering::SeqCst), 0, "one thread at a time");
            thread::yield_now();
            assert_eq!(values(), [some(&value), some(&value)]);
            INSIDE.fetch_sub(1, Ordering::SeqCst);
            drop(guard);
        }
    };
    thread::scope(|scope| (0..4).for_each(|number| _ = scope.spawn(move || one(number))));
    let _turn = Guard::new(&[]);
    assert_eq!(values(), [None, None]);
}

#[test]
fn a_thread_waits_as_long_as_another_has_any_guard() {
    let (outer, inner) = (Guard::new(&[(A, Some("1"))]), Guard::new(&[]));
    let (said, heard) = mpsc::channel();
    let waiting = thread::spawn(move || {
        let _guard = Guard::new(&[]);
        said.send(values()).expect("somebody listens");
    });
    drop(outer);
    assert!(heard.recv_timeout(Duration::from_millis(50)).is_err(), "the inner guard holds it too");
    drop(inner);
    assert_eq!(heard.recv_timeout(Duration::from_secs(60)), Ok([None, None]));
    waiting.join().expect("ends");
}

#[test]
fn values_are_read_by_their_kind() {
    let flag = |value| {
        let _guard = Guard::new(&[(STRICT.name(), value)]);
        STRICT.read().map_err(|error| error.to_string())
    };
    assert_eq!([flag(None), flag(Some("")), flag(Some("0"))], [Ok(false), Ok(false), Ok(false)]);
    assert_eq!(flag(Some("1")), Ok(true));
    for (value, shown) in
        [("yes", "yes"), (" 1", " 1"), ("\n\u{1b}", "\\n\\u{1b}"), (&"x".repeat(50), &"x".repeat(40))]
    {
        let error = flag(Some(value)).expect_err(value);
        assert!(error.starts_with(&format!("ASSAY_STRICT: expected 0 or 1, got '{shown}")), "{error}");
        assert!(error.ends_with("'; correct it or unset it") && error.lines().count() == 1, "{error}");
    }
    let number = |value| {
        let _guard = Guard::new(&[(SEED.name(), value)]);
        SEED.read().map_err(|error| error.to_string())
    };
    assert_eq!([number(None), number(Some("")), number(Some("7"))], [Ok(None), Ok(None), Ok(Some(7))]);
    assert_eq!(number(Some("18446744073709551615")), Ok(Some(u64::MAX)));
    for value in ["abc", "-1", "1.0", "18446744073709551616"] {
        let error = number(Some(value)).expect_err(value);
        assert_eq!(
            error,
            format!(
                "ASSAY_SEED: expected a number from 0 to 2^64 - 1, got '{value}'; correct it or unset it"
            )
        );
    }
    let _guard = Guard::new(&[(REQUIRE_ISA.name(), Some(" avx2  neon "))]);
    assert_eq!(REQUIRE_ISA.read(), Ok(vec!["avx2".to_owned(), "neon".to_owned()]));
}

#[test]
fn a_secret_is_given_and_never_shown() {
    let _guard = Guard::new(&[(SIGNING_KEY.name(), Some("0123abcd"))]);
    let key = SIGNING_KEY.read().expect("UTF-8").expect("set");
    assert_eq!((key.reveal(), format!("{key:?}")), ("0123abcd", "Hidden".to_owned()));
    assert!(!recorded().contains_key(SIGNING_KEY.name()));
    assert!(ALL.iter().all(|row| row.kind != Kind::Secret || !row.recorded));
}

#[test]
fn what_is_recorded_is_what_is_set_sorted_by_name() {
    let changes: Vec<(&str, Option<&str>)> = ALL.iter().map(|row| (row.name, Some("1"))).collect();
    let _guard = Guard::new(&changes);
    let names = [
        "ASSAY_DETERMINISTIC",
        "ASSAY_SEED",
        "ASSAY_SKIP_SLOW",
        "ASSAY_STRICT",
        "CUDA_VISIBLE_DEVICES",
        "GLIBC_TUNABLES",
        "OMP_NUM_THREADS",
        "RAYON_NUM_THREADS",
        "REQUIRE_ISA",
    ];
    assert_eq!(recorded().into_keys().collect::<Vec<_>>(), names);
    let _unset = Guard::new(&names.map(|name| (name, None)));
    let _empty = Guard::new(&[("CUDA_VISIBLE_DEVICES", Some(""))]);
    assert_eq!(recorded(), [("CUDA_VISIBLE_DEVICES".to_owned(), String::new())].into());
}
