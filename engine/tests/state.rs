//! A sequence cut anywhere: resumed from a saved state, or sharing a prefix, it gives the same logits; a damaged state is refused.

use assay_engine::Error;
use assay_engine::decode::{Hooks, Outcome, Request, generate, go_on};
use assay_engine::gguf::Gguf;
use assay_engine::kernels::{self, Kernels};
use assay_engine::model::{Model, Rows, Session, State, saved};
use assay_engine::threads::Pool;
use std::ops::ControlFlow;

const STABLE: &[u8] = include_bytes!("../../fixtures/golden/b158-stable.gguf");
const LLAMA: &[u8] = include_bytes!("../../fixtures/golden/llama-stable.gguf");
const PROMPT: [u32; 9] = [900, 104, 101, 108, 7, 300, 12, 512, 40];

fn with_model(file: &[u8], body: impl FnOnce(&Model<'_>)) {
    let gguf = Gguf::parse(file).expect("GGUF");
    body(&Model::load(&gguf, None).expect("model"));
}

/// Goes on from a state, collecting logits.
fn resume(
    model: &Model<'_>,
    kernels: &'static Kernels,
    state: State,
    request: &Request,
) -> (Outcome, Vec<f32>) {
    let mut logits = Vec::new();
    let mut session = Session::resume(model, kernels, state);
    let mut hooks = Hooks {
        on_logits: &mut |_, row| {
            logits.extend_from_slice(row);
            Ok(())
        },
        on_token: &mut |_| ControlFlow::Continue(()),
    };
    let pool = Pool::new(2).expect("threads");
    let outcome = go_on(&mut session, &pool, request, &mut hooks).expect("run");
    (outcome, logits)
}

fn cold(model: &Model<'_>, kernels: &'static Kernels, request: &Request) -> (Outcome, Vec<f32>) {
    let state = State::new(model, request.capacity()).expect("state");
    resume(model, kernels, state, request)
}

fn fed(model: &Model<'_>, kernels: &'static Kernels, tokens: &[u32]) -> State {
    let mut session = Session::new(model, kernels, tokens.len()).expect("session");
    session.feed(tokens, Rows::None).expect("fed");
    session.state().clone()
}

fn saved(model: &Model<'_>, state: &State) -> Vec<u8> {
    let mut bytes = Vec::new();
    saved::write(state, model, model.identity([7; 32]), &mut bytes).expect("a vector takes all");
    bytes
}

#[test]
fn resumed_or_after_a_shared_prefix_the_logits_are_those_of_a_cold_run() {
    for file in [STABLE, LLAMA] {
        with_model(file, |model| {
            let request = Request { prompt: PROMPT.to_vec(), steps: 6, ..Request::default() };
            for kernels in kernels::available() {
                let (whole, logits) = cold(model, kernels, &request);
                for n in [1, 5, PROMPT.len() - 1] {
                    let state = fed(model, kernels, &PROMPT[..n]);
                    let loaded = saved::read(
                        &saved(model, &state),
                        model,
                        model.identity([7; 32]),
                        request.capacity(),
                    );
                    let (after, tail) = resume(model, kernels, loaded.expect("state"), &request);
                    assert_eq!(after.generated, whole.generated, "{} from {n}", kernels.isa);
                    assert_eq!(tail, logits[n * model.config.vocab..], "{} from {n}", kernels.isa);
                    // The prefix of a longer sequence that goes on otherwise.
                    let other = fed(model, kernels, &[&PROMPT[..n], &[3, 4, 5]].concat());
                    let state = other.prefix(n, model, request.capacity()).expect("prefix");
                    assert_eq!(resume(model, kernels, state, &request).1, tail, "{} prefix {n}", kernels.isa);
                }
            }
        });
    }
}

#[test]
fn logits_of_the_last_prompt_token_alone_are_the_same_and_cost_less_work() {
    with_model(STABLE, |model| {
        let all = Request { prompt: PROMPT.to_vec(), steps: 3, batch: 4, ..Request::default() };
        let last = Request { prompt_logits: Rows::Last, ..all.clone() };
        let ((whole, logits), (less, tail)) =
            (cold(model, kernels::best(), &all), cold(model, kernels::best(), &last));
        assert_eq!((less.rows, whole.rows), (4, PROMPT.len() + 3));
        assert_eq!(tail, logits[(PROMPT.len() - 1) * model.config.vocab..]);
        let heads = |outcome: &Outcome| {
            let head = |(key, _): &&(assay_engine::work::Key, _)| key.operation.name() == "head";
            outcome.work.iter().filter(head).map(|(_, counts)| counts.rows).sum::<u64>()
        };
        assert_eq!(heads(&less) / model.config.vocab as u64, 4);
        assert_eq!(heads(&whole) / model.config.vocab as u64, PROMPT.len() as u64 + 3);
    });
}

#[test]
fn a_run_can_be_ended_before_a_token_is_fed() {
    with_model(STABLE, |model| {
        let request = Request { prompt: PROMPT.to_vec(), steps: 6, ..Request::default() };
        let pool = Pool::new(1).expect("threads");
        let whole = generate(model, kernels::best(), &pool, &request, &mut |_, _| Ok(())).expect("run");
        let stop = whole.generated[2];
        let first = whole.generated.iter().position(|token| *token == stop).expect("there");
        let mut session = Session::new(model, kernels::best(), request.capacity()).expect("session");
        let mut hooks = Hooks {
            on_logits: &mut |_, _| Ok(()),
            on_token: &mut |token| {
                if token == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            },
        };
        let ended = go_on(&mut session, &pool, &request, &mut hooks).expect("run");
        assert_eq!(ended.generated, whole.generated[..first]);
        assert_eq!(session.state().position(), PROMPT.len() + first);
    });
}

#[test]
fn a_damaged_or_foreign_state_is_refused() {
    with_model(STABLE, |model| {
        let state = fed(model, kernels::best(), &PROMPT);
        let bytes = saved(model, &state);
        let read =
            |bytes: &[u8], identity, capacity| saved::read(bytes, model, model.identity(identity), capacity);
        assert_eq!(read(&bytes, [7; 32], 9).expect("whole").tokens(), PROMPT);
        for at in (0..bytes.len()).step_by(997) {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << (at % 8);
            assert!(matches!(read(&bad, [7; 32], 9), Err(Error::State { .. })), "byte {at}");
        }
        for len in [0, 7, 8, 50, 72, 103, 104, bytes.len() - 1] {
            assert!(matches!(read(&bytes[..len], [7; 32], 9), Err(Error::State { .. })), "{len} bytes");
        }
        assert!(matches!(read(&bytes, [8; 32], 9), Err(Error::State { .. })), "another file");
        assert!(matches!(read(&bytes, [7; 32], 8), Err(Error::Input { .. })), "no room");
    });
}

#[test]
fn a_prompt_that_does_not_go_on_from_the_state_is_refused() {
    with_model(STABLE, |model| {
        let pool = Pool::new(1).expect("threads");
        for prompt in [vec![1, 2, 3], PROMPT[..4].to_vec(), vec![]] {
            let mut session =
                Session::resume(model, kernels::best(), fed(model, kernels::best(), &PROMPT[..4]));
            let request = Request { prompt, ..Request::default() };
            let mut hooks =
                Hooks { on_logits: &mut |_, _| Ok(()), on_token: &mut |_| ControlFlow::Continue(()) };
            let refused = go_on(&mut session, &pool, &request, &mut hooks);
            assert!(matches!(refused, Err(Error::State { .. } | Error::Input { .. })), "{refused:?}");
        }
    });
}

#[test]
fn no_tokens_change_nothing() {
    with_model(STABLE, |model| {
        let mut session = Session::resume(model, kernels::best(), fed(model, kernels::best(), &PROMPT[..4]));
        assert!(session.feed(&[], Rows::All).expect("nothing to do").is_empty());
        assert_eq!((session.state().position(), session.work().totals().len()), (4, 0));
    });
}
