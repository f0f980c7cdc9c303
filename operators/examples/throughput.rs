//! Times `A x` followed by `Aᵀ y` for one operator: `throughput NAME SETTINGS [CxHxW] [SECONDS]` prints milliseconds, a line
//! a call. The command of `benches/peers/throughput.py`.

use candle_core::{DType, Device};
use std::time::Instant;
use tweedie_operators::{OPERATORS, Rng, Site, find};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(name), Some(settings)) = (arguments.next(), arguments.next()) else {
        return Err("usage: throughput NAME SETTINGS [CxHxW] [SECONDS]".into());
    };
    let size = arguments.next().unwrap_or_else(|| "3x1024x1024".into());
    let seconds: f64 = arguments.next().map_or(Ok(1.0), |seconds| seconds.parse())?;
    let size: Vec<usize> = size.split('x').map(str::parse).collect::<Result<_, _>>()?;
    let [channels, height, width] = size[..] else { return Err("a size looks like 3x1024x1024".into()) };

    let site = Site::new((channels, height, width), &Device::Cpu, DType::F32);
    let operator = find(OPERATORS, &name)?.create(settings.parse()?, site)?;
    let linear = operator.as_linear().ok_or("the operator is not linear")?;
    let x = Rng::new(0, 0..1).normal((1, channels, height, width), &Device::Cpu)?;
    linear.adjoint(&linear.forward(&x)?)?;
    let start = Instant::now();
    while start.elapsed().as_secs_f64() < seconds {
        let call = Instant::now();
        linear.adjoint(&linear.forward(&x)?)?;
        println!("{}", call.elapsed().as_secs_f64() * 1e3);
    }
    Ok(())
}
