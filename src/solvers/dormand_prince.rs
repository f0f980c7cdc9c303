//! The embedded Runge–Kutta pair of Dormand and Prince (1980), <https://doi.org/10.1016/0771-050X(80)90013-3>: seven stages, of
//! which the last is the first of the next step.

/// Nodes of the stages after the first.
pub(crate) const NODES: [f64; 6] = [1.0 / 5.0, 3.0 / 10.0, 4.0 / 5.0, 8.0 / 9.0, 1.0, 1.0];

/// Weights of the slopes before each stage; the last row is the solution of order five.
pub(crate) const STAGES: [&[f64]; 6] = [
    &[1.0 / 5.0],
    &[3.0 / 40.0, 9.0 / 40.0],
    &[44.0 / 45.0, -56.0 / 15.0, 32.0 / 9.0],
    &[19372.0 / 6561.0, -25360.0 / 2187.0, 64448.0 / 6561.0, -212.0 / 729.0],
    &[9017.0 / 3168.0, -355.0 / 33.0, 46732.0 / 5247.0, 49.0 / 176.0, -5103.0 / 18656.0],
    &[35.0 / 384.0, 0.0, 500.0 / 1113.0, 125.0 / 192.0, -2187.0 / 6784.0, 11.0 / 84.0],
];

/// The same minus the weights of order four.
pub(crate) const ERROR: [f64; 7] =
    [71.0 / 57600.0, 0.0, -71.0 / 16695.0, 71.0 / 1920.0, -17253.0 / 339_200.0, 22.0 / 525.0, -1.0 / 40.0];

/// A step is not tried shorter than this in `ln σ`: what is left of the error is then the network's rounding.
pub(crate) const SHORTEST: f64 = 1e-3;

/// What the next step's length is of one whose error is `size` times the tolerance.
///
/// Usual numbers: nine tenths of the best length, changes by a factor of 0.2 to 10.
pub(crate) fn factor(size: f64) -> f64 {
    if size == 0.0 { 10.0 } else { (0.9 * size.powf(-0.2)).clamp(0.2, 10.0) }
}
