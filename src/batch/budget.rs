//! Memory that the photos in flight share.

use super::summary::Halt;
use crate::{Error, Result};
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A number of bytes, parts of which are lent. Who comes first is served first, so that nobody who needs much starves.
#[derive(Debug)]
pub(super) struct Budget {
    /// `None` is no limit: bytes are then only counted.
    limit: Option<u64>,
    state: Mutex<State>,
    returned: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lent: u64,
    /// Most bytes that were ever lent at a time.
    most: u64,
    tickets: u64,
    queue: VecDeque<u64>,
}

/// Bytes that are lent until this is dropped.
#[derive(Debug)]
pub(super) struct Loan<'a> {
    budget: &'a Budget,
    bytes: u64,
}

/// How long a thread sleeps before it looks whether the run is to end, where nothing else wakes it.
const PATIENCE: Duration = Duration::from_millis(50);

impl Budget {
    pub(super) fn new(limit: Option<u64>) -> Self {
        Self { limit, state: Mutex::default(), returned: Condvar::new() }
    }

    /// The limit, for who has to stay below it.
    pub(super) fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// Most bytes that were lent at a time.
    pub(super) fn most(&self) -> u64 {
        self.lock().most
    }

    /// Waits until `bytes` can be lent.
    ///
    /// # Errors
    /// `Memory` if there are not so many even when all are back, `Interrupted` if the run ends before.
    pub(super) fn lend(&self, bytes: u64, halt: &Halt<'_>) -> Result<Loan<'_>> {
        let mut loan = Loan { budget: self, bytes: 0 };
        self.exchange(&mut loan, bytes, halt)?;
        Ok(loan)
    }

    /// Waits until `loan` can be of `bytes` instead of what it is of.
    ///
    /// # Errors
    /// As [`lend`](Self::lend); the loan is then as it was.
    pub(super) fn exchange(&self, loan: &mut Loan<'_>, bytes: u64, halt: &Halt<'_>) -> Result<()> {
        if let Some(limit) = self.limit.filter(|&limit| bytes > limit) {
            return Err(Error::Memory { needs: bytes, limit, advice: "allow more with --memory".into() });
        }
        let mut state = self.lock();
        let ticket = state.tickets;
        state.tickets += 1;
        state.queue.push_back(ticket);
        let fits = |state: &State| {
            state.queue.front() == Some(&ticket)
                && self.limit.is_none_or(|limit| state.lent - loan.bytes + bytes <= limit)
        };
        while !fits(&state) {
            if let Err(error) = halt.check() {
                state.queue.retain(|&of| of != ticket);
                drop(state);
                self.returned.notify_all();
                return Err(error);
            }
            state = self.returned.wait_timeout(state, PATIENCE).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.queue.pop_front();
        state.lent = state.lent - loan.bytes + bytes;
        state.most = state.most.max(state.lent);
        loan.bytes = bytes;
        drop(state);
        self.returned.notify_all();
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Loan<'_> {
    /// Gives back all but `bytes`.
    pub(super) fn shrink(&mut self, bytes: u64) {
        let less = self.bytes.saturating_sub(bytes);
        self.bytes -= less;
        self.budget.lock().lent -= less;
        self.budget.returned.notify_all();
    }
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        self.budget.lock().lent -= self.bytes;
        self.budget.returned.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::summary::Signal;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    fn never() -> Option<Signal> {
        None
    }

    #[test]
    fn no_more_than_the_limit_is_lent_and_who_came_first_is_served_first() {
        let halt = Halt::new(&never, None, false);
        let budget = Budget::new(Some(100));
        let served = Mutex::new(Vec::new());
        let first = budget.lend(70, &halt).unwrap();
        thread::scope(|scope| {
            for (number, bytes) in [(0, 90), (1, 20), (2, 20)] {
                let (budget, halt, served) = (&budget, &halt, &served);
                scope.spawn(move || {
                    let _loan = budget.lend(bytes, halt).unwrap();
                    served.lock().unwrap().push(number);
                    assert!(budget.lock().lent <= 100);
                });
                while budget.lock().queue.len() <= number {
                    thread::yield_now();
                }
            }
            // There is room for the small ones, but the large one came before them.
            thread::sleep(Duration::from_millis(20));
            assert!(served.lock().unwrap().is_empty());
            drop(first);
        });
        assert_eq!(served.lock().unwrap()[0], 0);
        let most = budget.most();
        assert_eq!((budget.lock().lent, most), (0, 90));
    }

    #[test]
    fn what_can_never_fit_is_refused_and_who_waits_leaves_when_the_run_ends() {
        let stopped = AtomicBool::new(false);
        let stop = || stopped.load(Ordering::Relaxed).then_some(Signal::Interrupt);
        let halt = Halt::new(&stop, None, false);
        let budget = Budget::new(Some(3 << 20));
        let error = budget.lend((3 << 20) + 1, &halt).unwrap_err();
        assert_eq!(error.to_string(), "needs 4 MiB of memory, 3 MiB allowed; allow more with --memory");
        let all = budget.lend(3 << 20, &halt).unwrap();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| budget.lend(1, &halt).map(drop));
            stopped.store(true, Ordering::Relaxed);
            assert!(matches!(waiting.join().unwrap(), Err(Error::Interrupted)));
        });
        drop(all);
        assert!(budget.lock().queue.is_empty());
    }
}
