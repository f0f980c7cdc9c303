//! Plans of Fourier transforms, made here so that the FFT's code is compiled once and not wherever a plan is used.

use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};
use rustfft::{Fft, FftPlanner};
use std::fmt;
use std::sync::Arc;

/// What transforms real images of one size: their rows to and from the complex numbers of half a spectrum, and its columns.
#[derive(Clone)]
pub struct FourierPlans<T> {
    /// A row of real numbers to `width / 2 + 1` complex ones.
    pub rows: Arc<dyn RealToComplex<T>>,
    /// Back, times the width.
    pub rows_back: Arc<dyn ComplexToReal<T>>,
    /// A column of `height` complex numbers.
    pub columns: Arc<dyn Fft<T>>,
    /// Back, times the height.
    pub columns_back: Arc<dyn Fft<T>>,
}

impl<T> fmt::Debug for FourierPlans<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("FourierPlans").finish_non_exhaustive()
    }
}

macro_rules! plans {
    ($real:ty) => {
        impl FourierPlans<$real> {
            /// For images of `height × width` pixels, both at least 1.
            pub fn new(height: usize, width: usize) -> Self {
                let (mut real, mut complex) = (RealFftPlanner::<$real>::new(), FftPlanner::<$real>::new());
                Self {
                    rows: real.plan_fft_forward(width),
                    rows_back: real.plan_fft_inverse(width),
                    columns: complex.plan_fft_forward(height),
                    columns_back: complex.plan_fft_inverse(height),
                }
            }
        }
    };
}

plans!(f32);
plans!(f64);
