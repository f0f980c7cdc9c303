//! CPU kernels for score networks.
