//! Operators × samplers × images: what each method makes of each task, in figures.
//!
//! An [`Evaluation`] is one TOML file. An [`Evaluator`] makes the measurements, each once for all methods, and lists the
//! [`Run`]s; each becomes a [`Record`], which a [`Journal`] keeps on the disk under a key that holds all that decides it, so
//! that what is done is never done again and what has changed is. [`Report`] makes tables of the records.
//!
//! Restorations take the way of `tweedie restore`: a [`Case`](crate::Case) of the measurement, and `auto` means what users
//! get.

mod budget;
mod config;
mod evaluator;
mod journal;
pub(crate) mod memory;
mod record;
mod report;
mod subject;

pub use budget::Budget;
pub use config::{AUTO, Evaluation, Method, Task};
pub use evaluator::{Evaluator, Run};
pub use journal::Journal;
pub use record::{Figures, Outcome, Record};
pub use report::{Mean, Report, Row, TaskTable};
