//! One network call for all who wait for the same one.

use super::Denoiser;
use crate::Result;
use candle_core::{DType, Tensor};
use std::ops::RangeInclusive;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use tweedie_operators::Pullback;

/// `D` of several threads: images of one size that wait at one σ go through the network together.
///
/// Rows are independent, so every image comes back as if it had gone alone. Where a call costs the same for one image as for
/// eight, as on a GPU, eight photos at once take an eighth of the calls; on a CPU a call of one image fills every core, and
/// there is nothing to gain. Nobody waits for company: whoever finds the network free takes along who waits already.
///
/// Pullbacks go alone: their tapes belong to one image each.
#[derive(Debug)]
pub struct Gathered<'a> {
    inner: &'a dyn Denoiser,
    /// Most images of a call.
    rows: usize,
    /// Most calls at a time.
    calls: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    requests: u64,
    running: usize,
    /// In the order in which they came.
    waiting: Vec<Request>,
    answers: Vec<(u64, Answer)>,
    /// Calls of the network, and the images that went through it.
    count: (u64, u64),
}

#[derive(Debug)]
struct Request {
    number: u64,
    key: Key,
    x: Tensor,
}

/// What images must have in common.
#[derive(Clone, Debug, PartialEq)]
struct Key {
    sigma: f64,
    /// Channels, height, width.
    shape: Vec<usize>,
    dtype: DType,
}

#[derive(Debug)]
enum Answer {
    Denoised(Tensor),
    /// The call of all failed, and each is to try by itself.
    Alone,
}

impl<'a> Gathered<'a> {
    /// `inner` in at most `calls` calls at a time, of at most `rows` images each; both at least 1.
    pub fn new(inner: &'a dyn Denoiser, rows: usize, calls: usize) -> Self {
        let state = Mutex::default();
        Self { inner, rows: rows.max(1), calls: calls.max(1), state, changed: Condvar::new() }
    }

    /// Calls of the network so far, and images that went through it.
    pub fn count(&self) -> (u64, u64) {
        self.lock().count
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The network's own call for those of `taken`, the first of which is the caller's.
    fn call(&self, taken: &[Request]) -> Result<Vec<Tensor>> {
        let sigma = taken[0].key.sigma;
        if let [one] = taken {
            return Ok(vec![self.inner.denoise(&one.x, sigma)?]);
        }
        let images: Vec<&Tensor> = taken.iter().map(|request| &request.x).collect();
        let denoised = self.inner.denoise(&Tensor::cat(&images, 0)?, sigma)?;
        let mut first = 0;
        let mut parts = Vec::with_capacity(taken.len());
        for image in images {
            let rows = image.dim(0)?;
            // A copy: a view would keep the others' images in memory for as long as this one is used.
            parts.push(denoised.narrow(0, first, rows)?.force_contiguous()?);
            first += rows;
        }
        Ok(parts)
    }
}

/// Takes the caller's request, and those that can go with it, out of the queue.
fn take(waiting: &mut Vec<Request>, number: u64, most: usize) -> Vec<Request> {
    let Some(at) = waiting.iter().position(|request| request.number == number) else { return Vec::new() };
    let own = waiting.remove(at);
    let rows = |request: &Request| request.x.dim(0).unwrap_or(most);
    let mut sum = rows(&own);
    let mut taken = vec![own];
    let mut at = 0;
    while at < waiting.len() {
        let next = rows(&waiting[at]);
        if waiting[at].key == taken[0].key && sum + next <= most {
            sum += next;
            taken.push(waiting.remove(at));
        } else {
            at += 1;
        }
    }
    taken
}

/// Tells the others to go alone unless the call came to an answer, which it does not if the network panics.
struct Call<'a, 'b> {
    gathered: &'a Gathered<'b>,
    others: Vec<u64>,
    rows: u64,
    answers: Vec<Tensor>,
}

impl Drop for Call<'_, '_> {
    fn drop(&mut self) {
        let mut state = self.gathered.lock();
        state.running -= 1;
        state.count.0 += 1;
        state.count.1 += self.rows;
        let mut answers = self.answers.drain(..);
        for &number in &self.others {
            let answer = answers.next().map_or(Answer::Alone, Answer::Denoised);
            state.answers.push((number, answer));
        }
        drop(state);
        self.gathered.changed.notify_all();
    }
}

impl Denoiser for Gathered<'_> {
    fn denoise(&self, x: &Tensor, sigma: f64) -> Result<Tensor> {
        let key = Key { sigma, shape: x.dims().get(1..).unwrap_or_default().to_vec(), dtype: x.dtype() };
        let mut state = self.lock();
        state.requests += 1;
        let number = state.requests;
        state.waiting.push(Request { number, key, x: x.clone() });
        loop {
            if let Some(at) = state.answers.iter().position(|(of, _)| *of == number) {
                match state.answers.swap_remove(at).1 {
                    Answer::Denoised(denoised) => return Ok(denoised),
                    Answer::Alone => {
                        drop(state);
                        return self.inner.denoise(x, sigma);
                    }
                }
            }
            let is_waiting = state.waiting.iter().any(|request| request.number == number);
            if is_waiting && state.running < self.calls {
                let taken = take(&mut state.waiting, number, self.rows);
                state.running += 1;
                drop(state);
                let others = taken[1..].iter().map(|request| request.number).collect();
                let rows = taken.iter().map(|request| request.x.dim(0).unwrap_or(0) as u64).sum();
                let mut call = Call { gathered: self, others, rows, answers: Vec::new() };
                let mut denoised = match self.call(&taken) {
                    Ok(denoised) => denoised,
                    // Together they may be too many for the device; alone, an error is the caller's own.
                    Err(_) if taken.len() > 1 => {
                        drop(call);
                        return self.inner.denoise(x, sigma);
                    }
                    Err(error) => return Err(error),
                };
                let own = denoised.remove(0);
                call.answers = denoised;
                return Ok(own);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn channels(&self) -> Option<usize> {
        self.inner.channels()
    }

    fn sigma_range(&self) -> RangeInclusive<f64> {
        self.inner.sigma_range()
    }

    fn native_size(&self) -> Option<(usize, usize)> {
        self.inner.native_size()
    }

    fn spread(&self) -> f64 {
        self.inner.spread()
    }

    fn preconditioned(&self) -> Option<&super::Preconditioned> {
        self.inner.preconditioned()
    }

    fn denoise_with_pullback<'b>(&'b self, x: &Tensor, sigma: f64) -> Result<(Tensor, Pullback<'b>)> {
        self.inner.denoise_with_pullback(x, sigma)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use candle_core::Device;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    /// `D(x) = x / (1 + σ²)`, as slow as a network: until so many wait in the queue before it.
    #[derive(Debug)]
    struct Slow {
        first: Barrier,
        calls: AtomicUsize,
        refuses_several: bool,
    }

    impl Denoiser for Slow {
        fn denoise(&self, x: &Tensor, sigma: f64) -> Result<Tensor> {
            if self.calls.fetch_add(1, Ordering::Relaxed) == 0 {
                self.first.wait();
            }
            if self.refuses_several && x.dim(0)? > 1 {
                return Err(Error::NonFinite { step: 0, sigma });
            }
            Ok((x / (1.0 + sigma * sigma))?)
        }

        fn channels(&self) -> Option<usize> {
            None
        }

        fn sigma_range(&self) -> RangeInclusive<f64> {
            0.01..=10.0
        }
    }

    fn image(value: f32, size: usize) -> Tensor {
        Tensor::full(value, (1, 3, size, size), &Device::Cpu).unwrap()
    }

    /// One call that lasts until `others` wait, each an image of this σ and size; what came back, in their order.
    fn behind_a_slow_call(slow: &Slow, rows: usize, others: &[(f64, usize)]) -> (Vec<Tensor>, (u64, u64)) {
        let gathered = Gathered::new(slow, rows, 1);
        let denoised = thread::scope(|scope| {
            let first = scope.spawn(|| gathered.denoise(&image(9.0, 4), 7.0).unwrap());
            while slow.calls.load(Ordering::Relaxed) == 0 {
                thread::yield_now();
            }
            let gathered = &gathered;
            let waiting: Vec<_> = others
                .iter()
                .enumerate()
                .map(|(k, &(sigma, size))| {
                    scope.spawn(move || gathered.denoise(&image(k as f32, size), sigma).unwrap())
                })
                .collect();
            while gathered.lock().waiting.len() < others.len() {
                thread::yield_now();
            }
            slow.first.wait();
            first.join().unwrap();
            waiting.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        (denoised, gathered.count())
    }

    fn slow(refuses_several: bool) -> Slow {
        Slow { first: Barrier::new(2), calls: AtomicUsize::new(0), refuses_several }
    }

    fn check(denoised: &[Tensor], others: &[(f64, usize)]) {
        for (k, (tensor, &(sigma, size))) in denoised.iter().zip(others).enumerate() {
            let alone = (image(k as f32, size) / (1.0 + sigma * sigma)).unwrap();
            assert_eq!(tensor.dims(), alone.dims());
            let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(values(tensor), values(&alone));
        }
    }

    #[test]
    fn who_waits_at_one_sigma_and_size_goes_together() {
        let others = [(0.5, 4), (0.5, 4), (0.25, 4), (0.5, 8), (0.5, 4)];
        let slow = slow(false);
        let (denoised, count) = behind_a_slow_call(&slow, 8, &others);
        check(&denoised, &others);
        // The first one; three images; one of another σ; one of another size.
        assert_eq!(count, (4, 6));
        assert_eq!(slow.calls.load(Ordering::Relaxed), 4);
    }

    #[test]
    fn no_call_has_more_images_than_allowed() {
        let others = [(0.5, 4); 5];
        let (denoised, count) = behind_a_slow_call(&slow(false), 2, &others);
        check(&denoised, &others);
        assert_eq!(count, (4, 6));
    }

    #[test]
    fn what_fails_together_is_done_alone() {
        let others = [(0.5, 4); 3];
        let (denoised, _) = behind_a_slow_call(&slow(true), 8, &others);
        check(&denoised, &others);
    }

    #[test]
    fn an_error_is_the_callers_and_a_panic_leaves_nobody_waiting() {
        #[derive(Debug)]
        struct Broken;
        impl Denoiser for Broken {
            fn denoise(&self, _: &Tensor, sigma: f64) -> Result<Tensor> {
                assert!(sigma < 1.0, "as a broken network would");
                Err(Error::NonFinite { step: 3, sigma })
            }

            fn channels(&self) -> Option<usize> {
                None
            }

            fn sigma_range(&self) -> RangeInclusive<f64> {
                0.01..=10.0
            }
        }
        let gathered = Gathered::new(&Broken, 8, 1);
        assert!(matches!(gathered.denoise(&image(0.0, 4), 0.5), Err(Error::NonFinite { step: 3, .. })));
        thread::scope(|scope| {
            let panicking: Vec<_> = (0..3).map(|_| scope.spawn(|| gathered.denoise(&image(0.0, 4), 2.0))).collect();
            assert!(panicking.into_iter().all(|thread| thread.join().is_err()));
        });
        assert!(gathered.lock().running == 0 && gathered.lock().waiting.is_empty());
    }
}
