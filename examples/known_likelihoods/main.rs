//! Bits per dimension of images whose density is known: the table of docs/likelihood.md.

mod cases;

use std::time::Instant;
use tweedie::likelihood::Trace;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("| prior | dimensions | trace | exact | error | standard error | noise | evaluations | seconds |");
    println!("| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    for case in cases::cases()? {
        for trace in &case.traces {
            let clock = Instant::now();
            let line = cases::line(&case, *trace)?;
            let trace = match line.trace {
                Trace::Rademacher(probes) => format!("{probes} Rademacher"),
                Trace::Gaussian(probes) => format!("{probes} Gaussian"),
                Trace::Exact => "exact".into(),
            };
            println!(
                "| {} | {} | {trace} | {:.4} | {:+.5} | {:.5} | {:.5} | {} | {:.2} |",
                line.name,
                line.dimensions,
                line.exact,
                line.error,
                line.standard_error,
                line.noise,
                line.evaluations,
                clock.elapsed().as_secs_f64()
            );
        }
    }
    Ok(())
}
