//! The fused network against plain loops in double precision.

mod attention;
mod errors;
mod reference;
mod repeatable;
mod steps;
mod training;
mod work;
