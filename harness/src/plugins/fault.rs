//! What a dying child says last: which signal, where, in which buffer, during which case.
//!
//! The handler calls only what is allowed in one: it reads atomics, formats into an array and writes.
#![expect(unsafe_code, reason = "signal handlers and the last write of a dying process")]

use super::memory::{PLACES, Role};
use std::ffi::{c_int, c_void};
use std::io::Write as _;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicUsize, Ordering};

/// Where lines go.
static LINES: AtomicI32 = AtomicI32::new(-1);
/// The case that runs.
static CASE: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());
static CASE_LEN: AtomicUsize = AtomicUsize::new(0);

/// The signals that are reported. SIGALRM is the parent's: time is up.
const SIGNALS: [c_int; 7] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGABRT, libc::SIGSYS, libc::SIGALRM];

/// Name of a signal.
pub(crate) fn signal_name(signal: i32) -> String {
    let names = ["SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT", "SIGSYS", "SIGALRM"];
    let known = SIGNALS.iter().zip(names).find(|(known, _)| **known == signal);
    match (known, signal) {
        (Some((_, name)), _) => name.to_owned(),
        (None, libc::SIGKILL) => "SIGKILL".to_owned(),
        (None, libc::SIGTRAP) => "SIGTRAP".to_owned(),
        (None, other) => format!("signal {other}"),
    }
}

/// Takes over stdout for lines: what the plug-in prints goes to stderr, which the parent drops.
///
/// # Errors
/// - the system refuses.
pub(crate) fn take_stdout() -> std::io::Result<std::fs::File> {
    use std::os::fd::FromRawFd as _;
    // SAFETY: descriptors 1 and 2 are open in a child that the parent has just started; the new one belongs to the file.
    unsafe {
        let lines = libc::dup(1);
        if lines < 0 || libc::dup2(2, 1) < 0 {
            return Err(std::io::Error::last_os_error());
        }
        LINES.store(lines, Ordering::SeqCst);
        // Not inherited by what the plug-in may start.
        libc::fcntl(lines, libc::F_SETFD, libc::FD_CLOEXEC);
        Ok(std::fs::File::from_raw_fd(lines))
    }
}

/// No core files; no life after the parent.
pub(crate) fn limit() {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: sets limits of this process.
    unsafe {
        libc::setrlimit(libc::RLIMIT_CORE, &none);
        #[cfg(target_os = "linux")]
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
    }
}

/// The program that `command` starts ends with the thread that started it, also if that is killed.
pub(crate) fn dies_with_parent(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt as _;
    // SAFETY: between fork and exec only one system call is made.
    unsafe {
        command.pre_exec(|| {
            #[cfg(target_os = "linux")]
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
}

/// Installs the handler, on the alternate stack that Rust gives each of its threads. A plug-in may replace it: then the
/// parent only sees the signal.
pub(super) fn watch() {
    for signal in SIGNALS {
        // SAFETY: a handler that does only what is allowed in one; the struct is complete.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = report as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESETHAND;
            libc::sigaction(signal, &action, std::ptr::null_mut());
        }
    }
}

/// Says which case runs now. The text must live until the next call.
pub(super) fn now(case: &str) {
    CASE_LEN.store(0, Ordering::SeqCst);
    CASE.store(case.as_ptr().cast_mut(), Ordering::SeqCst);
    CASE_LEN.store(case.len(), Ordering::SeqCst);
}

extern "C" fn report(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let faulted = signal == libc::SIGSEGV || signal == libc::SIGBUS;
    let address = if faulted {
        // SAFETY: the system gives a handler with SA_SIGINFO a complete struct.
        unsafe { (*info).si_addr() }.addr()
    } else {
        0
    };
    let mut text = [0_u8; 768];
    let room = text.len();
    let mut rest = &mut text[..];
    // SAFETY: `now` was given text that outlives the case.
    let case = unsafe {
        let at = CASE.load(Ordering::SeqCst);
        let len = if at.is_null() { 0 } else { CASE_LEN.load(Ordering::SeqCst) };
        std::slice::from_raw_parts(
            if len == 0 { std::ptr::dangling() } else { at.cast_const() },
            len.min(400),
        )
    };
    let case = std::str::from_utf8(case).unwrap_or("");
    drop(write!(
        rest,
        "{{\"died\":{{\"signal\":{signal},\"case\":\"{case}\",\"write\":{}",
        write_fault(context)
    ));
    if faulted {
        drop(write!(rest, ",\"null\":{}", address < 65_536));
        if let Some((role, before, distance)) = place(address) {
            let role = role.name();
            drop(write!(rest, ",\"buffer\":\"{role}\",\"side\":\"{before}\",\"distance\":{distance}"));
        }
    }
    drop(writeln!(rest, "}}}}"));
    let len = room - rest.len();
    // SAFETY: writes what was formatted, and ends the process without running anything of it.
    unsafe {
        libc::write(LINES.load(Ordering::SeqCst), text.as_ptr().cast(), len);
        libc::_exit(99);
    }
}

/// The buffer that an address lies in or beside (within a page), the side, and the distance in bytes.
fn place(address: usize) -> Option<(Role, &'static str, usize)> {
    for set in &PLACES {
        for (role, place) in Role::ALL.into_iter().zip(set) {
            let at = |value: &AtomicUsize| value.load(Ordering::SeqCst);
            let (start, end, first, last) =
                (at(&place.start), at(&place.end), at(&place.first), at(&place.last));
            if start == 0 || address < start.saturating_sub(4096) || address >= end + 4096 {
                continue;
            }
            return Some(match address {
                address if address < first => (role, "before", first - address),
                address if address >= last => (role, "behind", address - last),
                address => (role, "inside", address - first),
            });
        }
    }
    None
}

/// Whether the faulting access was a write: `true`, `false`, or `null` where the processor does not tell.
fn write_fault(context: *mut c_void) -> &'static str {
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    {
        let context = context.cast::<libc::ucontext_t>();
        // SAFETY: the system gives a handler its context; bit 1 of the page fault's error code means a write.
        let code = unsafe { (*context).uc_mcontext.gregs[libc::REG_ERR as usize] };
        if code & 2 != 0 { "true" } else { "false" }
    }
    #[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
    {
        _ = context;
        "null"
    }
}

/// A child that may have to be stopped.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Victim(libc::pid_t);

impl Victim {
    /// The child with this id, which leads a process group of its own and has not been waited for.
    pub(crate) fn new(id: u32) -> Victim {
        Victim(libc::pid_t::try_from(id).unwrap_or(libc::pid_t::MAX))
    }

    /// Whether it has ended. It is not waited for: its id stays its own, and its group can be ended.
    pub(crate) fn has_ended(self) -> bool {
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        // SAFETY: asks about our own child; the struct is complete, and all zeros where nothing has happened.
        unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let id = libc::id_t::try_from(self.0).unwrap_or_default();
            libc::waitid(libc::P_PID, id, &raw mut info, options) != 0 || info.si_pid() != 0
        }
    }

    /// Tells it that its time is up: it says where it is, and ends.
    pub(super) fn alarm(self) {
        // SAFETY: sends a signal to our own child.
        unsafe { libc::kill(self.0, libc::SIGALRM) };
    }

    /// Ends it and all that it has started.
    pub(crate) fn kill_group(self) {
        // SAFETY: sends a signal to the group that our child leads.
        unsafe { libc::kill(-self.0, libc::SIGKILL) };
    }
}
