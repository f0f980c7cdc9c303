//! Ctrl-C and SIGTERM: the first asks the work to stop at its next step, a second one ends the process at once.

use super::exit::ExitCode;
use crate::batch::Signal;
use crate::{Error, Result};
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

/// How often who waits looks whether a signal has arrived.
const PATIENCE: Duration = Duration::from_millis(20);

/// Number of the signal that arrived; 0 if none.
static ARRIVED: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);

/// Starts to listen. Elsewhere than on Unix the system ends the process, and temporary files are all that is left.
pub(crate) fn listen() {
    #[cfg(unix)]
    {
        use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
        use std::sync::atomic::AtomicBool;
        for (signal, code) in [(SIGINT, 130), (SIGTERM, 143)] {
            let again = Arc::new(AtomicBool::new(false));
            // The order matters: the shutdown looks at the flag before this same signal has set it.
            // Registration fails for forbidden signals only, and these are not.
            let _ = signal_hook::flag::register_conditional_shutdown(signal, code, Arc::clone(&again));
            let _ = signal_hook::flag::register(signal, again);
            let _ = signal_hook::flag::register_usize(signal, Arc::clone(&ARRIVED), signal as usize);
        }
        // A file that grows beyond the system's limit is an error of writing it, not the end of the process.
        let _ = signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)));
    }
}

/// [`Error::Interrupted`] once a signal has arrived.
pub(crate) fn check() -> Result<()> {
    if ARRIVED.load(Ordering::Relaxed) == 0 { Ok(()) } else { Err(Error::Interrupted) }
}

/// What `work` comes to, or [`Error::Interrupted`] as soon as a signal arrives, however long `work` waits for others: it goes on
/// until the process ends, and must leave nothing behind then.
pub(crate) fn waiting<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let (sender, receiver) = sync_channel(1);
    let worker = std::thread::spawn(move || {
        // After a signal nobody takes it.
        let _ = sender.send(work());
    });
    loop {
        match receiver.recv_timeout(PATIENCE) {
            Ok(value) => return Ok(value),
            Err(RecvTimeoutError::Timeout) => check()?,
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    match worker.join() {
        Err(panic) => std::panic::resume_unwind(panic),
        Ok(()) => unreachable!("it sends before it ends"),
    }
}

/// The signal that arrived, if one has.
pub(crate) fn signal() -> Option<Signal> {
    match ARRIVED.load(Ordering::Relaxed) {
        0 => None,
        _ if exit_code() == ExitCode::Terminated => Some(Signal::Terminate),
        _ => Some(Signal::Interrupt),
    }
}

/// The code to end with after an interruption.
pub(crate) fn exit_code() -> ExitCode {
    const SIGTERM: usize = 15;
    if ARRIVED.load(Ordering::Relaxed) == SIGTERM { ExitCode::Terminated } else { ExitCode::Interrupted }
}
