use candle_core::{D, DType, Device, Tensor};
use tweedie_operators::{Error, Pullback, pullback};

use crate::{inner, norm, random, values};

type Function = fn(&Tensor) -> Result<Tensor, Error>;

/// Every operation that the operators of this crate differentiate through, each against central differences.
#[test]
fn pullbacks_agree_with_central_differences() {
    let functions: [(&str, Function); 9] = [
        ("squares", |x| Ok(x.sqr()?)),
        ("two uses", |x| Ok((x.sin()? * x)?)),
        ("sum over channels", |x| Ok(x.sum_keepdim(1)?.exp()?)),
        ("mean pooling", |x| Ok(x.avg_pool2d(2)?.sqr()?)),
        ("narrow and pad", |x| Ok(x.narrow(3, 1, 3)?.pad_with_zeros(3, 2, 1)?.sqr()?)),
        ("broadcast", |x| Ok(x.sum_keepdim(D::Minus1)?.broadcast_mul(x)?)),
        ("blocks", |x| Ok(x.reshape((2, 3, 2, 2, 4))?.broadcast_mul(&x.reshape((2, 3, 2, 2, 4))?.sum_keepdim(3)?)?)),
        ("permuted", |x| Ok((x.permute((0, 1, 3, 2))?.contiguous()?.sqr()? * 0.5)?)),
        ("matrix product", |x| Ok(x.matmul(&x.t()?.contiguous()?)?)),
    ];
    let x = random(&[2, 3, 4, 4], 1, DType::F64);
    for (name, f) in functions {
        let (value, pullback) = pullback(&x, f).unwrap();
        let v = random(value.dims(), 2, DType::F64);
        let direction = random(x.dims(), 3, DType::F64);
        let step = 1e-5;
        let at = |sign: f64| inner(&f(&(&x + (&direction * (sign * step)).unwrap()).unwrap()).unwrap(), &v);
        let difference = (at(1.0) - at(-1.0)) / (2.0 * step);
        let gradient = pullback.apply(&v).unwrap();
        let derivative = inner(&gradient, &direction);
        let error = (difference - derivative).abs() / (norm(&gradient) * norm(&direction));
        assert!(error < 1e-7, "{name}: {difference} and {derivative}");
    }
}

#[test]
fn a_pullback_can_be_applied_again_and_gives_the_same() {
    let x = random(&[1, 1, 3, 3], 1, DType::F32);
    let (_, pullback) = pullback(&x, |x| Ok::<_, Error>(x.sqr()?)).unwrap();
    let v = random(&[1, 1, 3, 3], 2, DType::F32);
    assert_eq!(values(&pullback.apply(&v).unwrap()), values(&pullback.apply(&v).unwrap()));
}

#[test]
fn values_are_detached_from_the_graph() {
    let x = random(&[1, 1, 3, 3], 1, DType::F32);
    let (value, _) = pullback(&x, |x| Ok::<_, Error>(x.sqr()?)).unwrap();
    assert!(!value.track_op());
}

#[test]
fn a_gradient_that_does_not_reach_the_input_is_an_error() {
    let x = random(&[1, 1, 3, 3], 1, DType::F32);
    let functions: [Function; 2] = [|x| Ok(x.detach().sqr()?), |x| Ok(x.round()?)];
    for f in functions {
        let (value, pullback) = pullback(&x, f).unwrap();
        let error = pullback.apply(&value).unwrap_err();
        assert!(matches!(error, Error::NoGradient), "{error}");
    }
    let constant = Tensor::ones((1, 1), DType::F32, &Device::Cpu).unwrap();
    let (value, pullback) = pullback(&x, |_| Ok::<_, Error>(constant)).unwrap();
    assert_eq!(
        pullback.apply(&value).unwrap_err().to_string(),
        "no gradient reaches the input: an operation on the way has no derivative"
    );
}

#[test]
fn a_cotangent_of_another_shape_is_refused() {
    let x = random(&[1, 1, 3, 3], 1, DType::F32);
    let (_, pullback) = pullback(&x, |x| Ok::<_, Error>(x.sqr()?)).unwrap();
    let error = pullback.apply(&random(&[1, 1, 3, 2], 1, DType::F32)).unwrap_err();
    assert_eq!(error.to_string(), "cotangent of a pullback has shape [1, 1, 3, 2], expected [1, 1, 3, 3]");
}

#[test]
fn a_closure_may_borrow_what_it_needs() {
    let weight = random(&[1, 1, 3, 3], 1, DType::F32);
    let pullback = Pullback::new(|v| Ok((v * &weight)?));
    let v = random(&[1, 1, 3, 3], 2, DType::F32);
    assert_eq!(values(&pullback.apply(&v).unwrap()), values(&(&v * &weight).unwrap()));
    assert_eq!(format!("{pullback:?}"), "Pullback { .. }");
}
