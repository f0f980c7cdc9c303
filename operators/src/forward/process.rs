//! A user's own operator, as a program in any language that answers on its standard output.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::path::{self, Path};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fmt, thread};

use candle_core::{DType, Device, Tensor};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use super::{BuildOperator, ForwardOperator, LinearOperator, check_image};
use crate::registry::{Entry, Site};
use crate::{Error, Result};

/// Most bytes of an answer beside its numbers.
const HEADER: usize = 1 << 20;
/// Most numbers of a measurement.
const MAX_MEASUREMENT: usize = 1 << 30;
/// How much of what the program last wrote to its standard error an error quotes.
const TAIL: usize = 2048;
/// How long a program that closed its output may take to end, and to flush its standard error.
const GRACE: Duration = Duration::from_millis(500);

/// `y = A(x)` computed by a program that is started once and asked through its standard input.
///
/// A message is its length in 8 bytes, little endian, and a file of safetensors whose metadata says what is asked.
/// Rows of a batch are sent one by one, so that they cannot touch each other. The program ends with the operator; after
/// a failure that leaves the two out of step (a time-out, an end, an answer that is too long) it is stopped and stays so.
pub struct Process {
    program: Mutex<Program>,
    command: Vec<String>,
    linear: bool,
    /// Shapes of an image and of its measurement, without the batch.
    image: [usize; 3],
    measurement: Vec<usize>,
}

impl fmt::Debug for Process {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { command, linear, image, measurement, .. } = self;
        let mut debug = formatter.debug_struct("Process");
        debug.field("command", command).field("linear", linear);
        debug.field("image", image).field("measurement", measurement).finish_non_exhaustive()
    }
}

impl Process {
    /// Starts the program in the site's folder and asks it for the shape of a measurement; `linear` overrules its answer.
    ///
    /// # Errors
    /// [`Error::Config`] for an empty command, a program that cannot be started or a time that is none;
    /// [`Error::External`] if the program fails, or does not answer within `timeout` seconds.
    pub fn new(command: Vec<String>, timeout: f64, linear: Option<bool>, site: Site<'_>) -> Result<Self> {
        let timeout = Duration::try_from_secs_f64(timeout).ok().filter(|time| !time.is_zero()).ok_or_else(|| {
            Error::config("process", format!("timeout is {timeout}, expected a number of seconds above 0"))
        })?;
        let mut program = Program::start(&command, timeout, site.folder)?;
        let (channels, height, width) = site.image;
        let image = [channels, height, width];
        let answer = program.ask("shape", &[("image", format!("{image:?}"))], &[], HEADER)?;
        let answer = Answer::parse(&answer).map_err(|reason| program.fail("shape", &reason))?;
        let measurement = answer.shape("measurement").map_err(|reason| program.fail("shape", &reason))?;
        let says = match answer.metadata.get("linear").map(String::as_str) {
            Some("true") => Some(true),
            Some("false") => Some(false),
            None => None,
            Some(other) => {
                return Err(program.fail("shape", &format!("linear is `{other}`, expected `true` or `false`")));
            }
        };
        let linear = linear.or(says).ok_or_else(|| {
            program.fail("shape", "the answer does not say whether it is linear, and the configuration neither")
        })?;
        Ok(Self { program: Mutex::new(program), command, linear, image, measurement })
    }

    /// One request for each row of the arguments; the answers as a batch.
    fn rows(
        &self,
        request: &'static str,
        arguments: &[(&'static str, &Tensor)],
        name: &str,
        shape: &[usize],
    ) -> Result<Tensor> {
        let (batch, dtype, device) = match arguments {
            [(_, first), ..] => (first.dims()[0], first.dtype(), first.device()),
            [] => return Err(Error::config("process", "a request without arguments")),
        };
        if let Some((_, other)) = arguments.iter().find(|(_, other)| other.dims()[0] != batch) {
            let (what, expected) = (format!("cotangent of {self}"), format!("[{batch}, ..], a row for each image"));
            return Err(Error::Shape { what, got: other.dims().to_vec(), expected });
        }
        let transfer = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
        let mut tensors = Vec::with_capacity(arguments.len());
        for (name, tensor) in arguments {
            tensors.push((*name, tensor.to_device(&Device::Cpu)?.to_dtype(transfer)?));
        }
        let size: usize = shape.iter().product();
        let mut program = self.lock();
        let mut values = Vec::with_capacity(batch * size);
        for row in 0..batch {
            let mut payload = Vec::with_capacity(tensors.len());
            for (name, tensor) in &tensors {
                let row = tensor.get(row)?;
                payload.push((*name, row.dims().to_vec(), bytes(&row)?));
            }
            let answer = program.ask(request, &[], &payload, size * 8 + HEADER)?;
            let numbers = Answer::parse(&answer).and_then(|answer| answer.tensor(name, shape, &mut values));
            numbers.map_err(|reason| program.fail(request, &reason))?;
            if values[row * size..].iter().any(|value| !value.is_finite()) {
                return Err(Error::NonFinite { what: format!("{name} of request `{request}` to {self}") });
            }
        }
        let batch: Vec<usize> = [batch].iter().chain(shape).copied().collect();
        Ok(Tensor::from_vec(values, batch, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?)
    }

    /// A thread that failed with the lock left the program in step or stopped it.
    fn lock(&self) -> MutexGuard<'_, Program> {
        self.program.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_measurement(&self, y: &Tensor) -> Result<()> {
        match y.dims().split_first() {
            Some((_, row)) if row == self.measurement => Ok(()),
            _ => {
                let sides = self.measurement.iter().map(|side| format!(", {side}")).collect::<String>();
                let (what, expected) = (format!("measurement of {self}"), format!("[_{sides}]"));
                Err(Error::Shape { what, got: y.dims().to_vec(), expected })
            }
        }
    }

    fn check_image(&self, x: &Tensor) -> Result<()> {
        check_image(&format!("image for {self}"), x, self.image.map(Some))
    }
}

impl fmt::Display for Process {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "process `{}`", self.command.join(" "))
    }
}

impl ForwardOperator for Process {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.check_image(x)?;
        self.rows("forward", &[("x", x)], "y", &self.measurement)
    }

    fn vjp(&self, x: &Tensor, v: &Tensor) -> Result<Tensor> {
        if self.linear {
            return self.adjoint(v);
        }
        self.check_image(x)?;
        self.check_measurement(v)?;
        self.rows("vjp", &[("x", x), ("v", v)], "x", &self.image)
    }

    fn as_linear(&self) -> Option<&dyn LinearOperator> {
        self.linear.then_some(self)
    }
}

impl LinearOperator for Process {
    fn adjoint(&self, y: &Tensor) -> Result<Tensor> {
        self.check_measurement(y)?;
        self.rows("adjoint", &[("y", y)], "x", &self.image)
    }
}

/// The numbers of a tensor of f32 or f64, little endian.
fn bytes(tensor: &Tensor) -> Result<(Dtype, Vec<u8>)> {
    let flat = tensor.flatten_all()?;
    Ok(match tensor.dtype() {
        DType::F64 => (Dtype::F64, flat.to_vec1::<f64>()?.into_iter().flat_map(f64::to_le_bytes).collect()),
        _ => (Dtype::F32, flat.to_vec1::<f32>()?.into_iter().flat_map(f32::to_le_bytes).collect()),
    })
}

/// What a program answered: an error if it said so.
struct Answer<'a> {
    metadata: HashMap<String, String>,
    file: SafeTensors<'a>,
}

impl<'a> Answer<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, String> {
        let unreadable = |error| format!("the answer is no file of safetensors: {error}");
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(unreadable)?;
        let file = SafeTensors::deserialize(bytes).map_err(unreadable)?;
        let metadata = header.metadata().clone().unwrap_or_default();
        match (metadata.get("error"), metadata.contains_key("ok")) {
            (Some(error), _) => Err(format!("the program says: {error}")),
            (None, true) => Ok(Self { metadata, file }),
            (None, false) => Err("the metadata of the answer has neither `ok` nor `error`".into()),
        }
    }

    /// `[3, 4, 4]`, in the metadata.
    fn shape(&self, key: &str) -> Result<Vec<usize>, String> {
        let text = self.metadata.get(key).ok_or_else(|| format!("the answer has no `{key}`"))?;
        let list = text.trim().strip_prefix('[').and_then(|list| list.strip_suffix(']'));
        let sides = list.and_then(|list| list.split(',').map(|side| side.trim().parse().ok()).collect());
        let sides: Vec<usize> = sides.ok_or_else(|| format!("{key} is `{text}`, expected a list as [3, 8, 8]"))?;
        match sides.iter().try_fold(1usize, |size, &side| size.checked_mul(side)) {
            Some(1..=MAX_MEASUREMENT) => Ok(sides),
            _ => Err(format!("{key} is {sides:?}, expected 1 to {MAX_MEASUREMENT} numbers")),
        }
    }

    /// Appends the numbers of a tensor of f32 or f64.
    fn tensor(&self, name: &str, shape: &[usize], values: &mut Vec<f64>) -> Result<(), String> {
        let tensor = self.file.tensor(name).map_err(|_| {
            let names = self.file.names();
            format!("the answer has no tensor `{name}`, only {names:?}")
        })?;
        if tensor.shape() != shape {
            return Err(format!("{name} has shape {:?}, expected {shape:?}", tensor.shape()));
        }
        let data = tensor.data();
        match tensor.dtype() {
            Dtype::F32 => values.extend(data.as_chunks().0.iter().map(|&bytes| f64::from(f32::from_le_bytes(bytes)))),
            Dtype::F64 => values.extend(data.as_chunks().0.iter().map(|&bytes| f64::from_le_bytes(bytes))),
            other => return Err(format!("{name} is of type {other:?}, expected F32 or F64")),
        }
        Ok(())
    }
}

/// A tensor as it is sent: name, shape, numbers.
type Payload = (&'static str, Vec<usize>, (Dtype, Vec<u8>));

/// A request with the most bytes its answer may have.
type Request = (Vec<u8>, usize);

/// A running program; stopped when dropped.
struct Program {
    /// The command, for errors.
    label: String,
    child: Child,
    timeout: Duration,
    requests: Sender<Request>,
    answers: Receiver<Result<Vec<u8>, String>>,
    /// What it last wrote to its standard error; the channel closes when that does.
    tail: Arc<Mutex<Vec<u8>>>,
    tail_ended: Receiver<()>,
    /// Why it was stopped.
    stopped: Option<String>,
}

impl Program {
    fn start(command: &[String], timeout: Duration, folder: &Path) -> Result<Self> {
        let [name, arguments @ ..] = command else {
            return Err(Error::config("process", "command is empty, expected a program and its arguments"));
        };
        let refuse =
            |reason: &dyn fmt::Display| Error::config("process", format!("command: `{name}` did not start: {reason}"));
        // A name with a folder in it starts from the site's folder, as other files do; a bare one is searched for.
        let bare = Path::new(name).components().count() == 1;
        let program = if bare { name.into() } else { path::absolute(folder.join(name)).map_err(|e| refuse(&e))? };
        let mut command_line = Command::new(program);
        command_line.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if folder != Path::new("") {
            command_line.current_dir(folder);
        }
        // An interrupt from the terminal is for the one who started the program, who then stops it.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command_line, 0);
        let mut child = command_line.spawn().map_err(|error| refuse(&error))?;
        let (Some(stdin), Some(stdout), Some(mut stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(refuse(&"it has no standard streams"));
        };
        let (requests, inbox) = channel();
        let (outbox, answers) = channel();
        let conversation = move || converse(stdin, stdout, &inbox, &outbox);
        thread::Builder::new().spawn(conversation).map_err(|error| refuse(&error))?;
        let tail = Arc::new(Mutex::new(Vec::new()));
        let (ended, tail_ended) = channel();
        let kept = tail.clone();
        let listen = move || {
            // Dropped at the end, which closes the channel.
            let _ended = ended;
            let mut buffer = [0; TAIL];
            while let Ok(count @ 1..) = stderr.read(&mut buffer) {
                let mut tail: MutexGuard<'_, Vec<u8>> = kept.lock().unwrap_or_else(PoisonError::into_inner);
                tail.extend_from_slice(&buffer[..count]);
                let excess = tail.len().saturating_sub(TAIL);
                tail.drain(..excess);
            }
        };
        thread::Builder::new().spawn(listen).map_err(|error| refuse(&error))?;
        let label = command.join(" ");
        Ok(Self { label, child, timeout, requests, answers, tail, tail_ended, stopped: None })
    }

    /// Sends a request and waits for the answer.
    fn ask(
        &mut self,
        request: &'static str,
        settings: &[(&str, String)],
        payload: &[Payload],
        limit: usize,
    ) -> Result<Vec<u8>> {
        if let Some(reason) = &self.stopped {
            return Err(self.fail(request, &format!("it was stopped after a failure: {reason}")));
        }
        let mut metadata = HashMap::from([("request".to_owned(), request.to_owned())]);
        metadata.extend(settings.iter().map(|(key, value)| (key.to_string(), value.clone())));
        let views = payload.iter().map(|(name, shape, (dtype, bytes))| {
            TensorView::new(*dtype, shape.clone(), bytes).map(|view| (*name, view))
        });
        let views: Vec<_> = views.collect::<Result<_, _>>().map_err(|error| self.fail(request, &error.to_string()))?;
        let file = safetensors::serialize(views, Some(metadata));
        let file = file.map_err(|error| self.fail(request, &error.to_string()))?;
        let answer = match self.requests.send((file, limit)) {
            Ok(()) => self.answers.recv_timeout(self.timeout),
            Err(_) => Err(RecvTimeoutError::Disconnected),
        };
        let reason = match answer {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(reason)) => reason,
            Err(RecvTimeoutError::Timeout) => format!("no answer within {} s", self.timeout.as_secs_f64()),
            Err(RecvTimeoutError::Disconnected) => "the thread that speaks with it ended".into(),
        };
        let reason = self.stop(reason);
        Err(self.fail(request, &reason))
    }

    /// Stops the program, which is out of step, and gives the whole reason: how it ended and what it last said.
    fn stop(&mut self, mut reason: String) -> String {
        // One that closed its output is about to end; its own status says more than that of being stopped.
        let pauses = if reason.starts_with(ENDED) { 50 } else { 0 };
        for _ in 0..pauses {
            match self.child.try_wait() {
                Ok(None) => thread::sleep(GRACE / 50),
                Ok(Some(status)) => {
                    reason = format!("{reason} ({status})");
                    break;
                }
                Err(_) => break,
            }
        }
        self.kill();
        // The end of its standard error, if it comes.
        let _ = self.tail_ended.recv_timeout(GRACE);
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let tail = String::from_utf8_lossy(&tail);
        let lines: Vec<&str> = tail.trim().lines().map(str::trim).collect();
        if !lines.is_empty() {
            let last = lines[lines.len().saturating_sub(5)..].join(" | ");
            reason = format!("{reason}; its standard error ends with: {last}");
        }
        self.stopped = Some(reason.clone());
        reason
    }

    fn kill(&mut self) {
        // Both fail only where the program has ended and been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn fail(&self, request: &str, reason: &str) -> Error {
        Error::External(format!("process `{}`: request `{request}`: {reason}", self.label).into())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The start of the reason where the program closed its output.
const ENDED: &str = "the program ended";

/// Writes requests and reads answers until one of the two fails; writing and reading both may block for ever, which is why
/// they have a thread of their own.
fn converse(
    mut stdin: ChildStdin,
    mut stdout: ChildStdout,
    requests: &Receiver<Request>,
    answers: &Sender<Result<Vec<u8>, String>>,
) {
    while let Ok((request, limit)) = requests.recv() {
        let answer = exchange(&mut stdin, &mut stdout, &request, limit);
        let failed = answer.is_err();
        if answers.send(answer).is_err() || failed {
            return;
        }
    }
}

fn exchange(stdin: &mut impl Write, stdout: &mut impl Read, request: &[u8], limit: usize) -> Result<Vec<u8>, String> {
    let sent = stdin.write_all(&(request.len() as u64).to_le_bytes());
    sent.and_then(|()| stdin.write_all(request))
        .and_then(|()| stdin.flush())
        .map_err(|_| format!("{ENDED} before it read the request"))?;
    let mut length = [0; 8];
    stdout.read_exact(&mut length).map_err(|_| format!("{ENDED} without an answer"))?;
    let size = u64::from_le_bytes(length);
    if size > limit as u64 {
        let text = String::from_utf8_lossy(&length);
        let hint = "does the program print to its standard output?";
        return Err(format!("an answer of {size} bytes that begins with {text:?}, expected at most {limit}: {hint}"));
    }
    // Grows with what arrives, not with what is promised.
    let mut answer = Vec::new();
    match stdout.take(size).read_to_end(&mut answer) {
        Ok(count) if count as u64 == size => Ok(answer),
        Ok(count) => Err(format!("{ENDED} within an answer, after {count} of {size} bytes")),
        Err(error) => Err(format!("reading its answer failed: {error}")),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The program and its arguments; started in the folder of the configuration.
    command: Vec<String>,
    /// Longest time to wait for one answer, in seconds.
    #[serde(default = "Config::timeout")]
    timeout: f64,
    /// Whether the operator is linear; by default the program is asked.
    linear: Option<bool>,
}

impl Config {
    fn timeout() -> f64 {
        60.0
    }
}

/// `process`
pub(crate) const ENTRY: Entry<BuildOperator> = Entry {
    name: "process",
    about: "A program of your own that answers on its standard output",
    fields: &[
        ("command", "the program and its arguments; it is run, so use no configuration that you do not trust"),
        ("timeout", "longest time to wait for one answer in seconds, above 0; default 60"),
        ("linear", "whether the operator is linear; default what the program says"),
    ],
    example: "command = [\"python3\", \"measure.py\"]",
    build: BuildOperator::reshaping(
        |table, site| {
            let Config { command, timeout, linear } = table.try_into()?;
            Ok(Box::new(Process::new(command, timeout, linear, site)?))
        },
        |_, y, _| {
            let reason = format!("a measurement of {y:?} does not tell the shape of its image, which must be given");
            Err(Error::config("process", reason))
        },
    ),
};
