//! Transposed Jacobians.

use std::fmt;

use candle_core::{Tensor, Var};

use crate::{Error, Result};

/// `f(x)` and the map `v ↦ J_f(x)ᵀ v`, from one forward pass, by candle's reverse-mode differentiation.
///
/// `x` is copied once and becomes the leaf of a graph of its own, which lives as long as the pullback does; the value
/// returned is detached from it.
///
/// # Shapes
/// `x` and the result of `apply` share shape and type; `v` is like `f(x)`.
///
/// # Errors
/// Those of `f`. `apply` returns [`Error::NoGradient`] if no gradient reaches `x`, never zeros: several fused
/// operations of candle have no derivative and would stop the gradient without a word.
pub fn pullback<E: From<Error>>(
    x: &Tensor,
    f: impl FnOnce(&Tensor) -> Result<Tensor, E>,
) -> Result<(Tensor, Pullback<'static>), E> {
    let leaf = Var::from_tensor(x).map_err(Error::from)?;
    let output = f(leaf.as_tensor())?;
    let value = output.detach();
    let apply = move |v: &Tensor| {
        if v.dims() != output.dims() {
            return Err(Error::Shape {
                what: "cotangent of a pullback".into(),
                got: v.dims().to_vec(),
                expected: format!("{:?}", output.dims()),
            });
        }
        // The gradient of ⟨f(x), v⟩ with respect to x is J_f(x)ᵀ v.
        let inner = (&output * v.detach())?.sum_all()?;
        inner.backward()?.remove(leaf.as_tensor()).ok_or(Error::NoGradient)
    };
    Ok((value, Pullback::new(apply)))
}

type Transpose<'a> = dyn Fn(&Tensor) -> Result<Tensor> + Send + Sync + 'a;

/// A transposed Jacobian: candle's graph, or any closure that knows better. Dropping it frees what it holds.
pub struct Pullback<'a>(Box<Transpose<'a>>);

impl<'a> Pullback<'a> {
    /// Takes a closure that computes `J_f(x)ᵀ v`.
    pub fn new(apply: impl Fn(&Tensor) -> Result<Tensor> + Send + Sync + 'a) -> Self {
        Self(Box::new(apply))
    }

    /// `J_f(x)ᵀ v`; may be called any number of times.
    pub fn apply(&self, v: &Tensor) -> Result<Tensor> {
        (self.0)(v)
    }
}

impl fmt::Debug for Pullback<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Pullback").finish_non_exhaustive()
    }
}
