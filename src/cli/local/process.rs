//! One node as a child process.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::cli::{Exit, Failure};

/// How often a process is asked whether it has ended.
const POLL: Duration = Duration::from_millis(5);

/// A running node. Killed when dropped; it ends by itself when this process goes without that, since the pipe to its
/// standard input goes, too.
#[derive(Debug)]
pub struct Child {
    process: std::process::Child,
    log: PathBuf,
    /// The line it printed when it began to serve.
    pub greeting: String,
}

impl Child {
    /// Starts `PROGRAM node --config F` and waits for the line that says that it serves. Its events go to `log`.
    pub(super) fn start(
        program: &Path,
        configuration: &Path,
        io: Option<&str>,
        log: &Path,
        patience: Duration,
    ) -> Result<Child, Failure> {
        let open = File::options().create(true).append(true).open(log);
        let events = open.map_err(|error| cannot_start(program, &error))?;
        let mut command = Command::new(program);
        command.arg("node").arg("--config").arg(configuration).arg("--stop-with-parent");
        if let Some(io) = io {
            command.arg("--io").arg(io);
        }
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(events).spawn();
        let mut process = spawned.map_err(|error| cannot_start(program, &error))?;
        let stdout = process.stdout.take().expect("standard output is piped");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut child = Child { process, log: log.to_owned(), greeting: String::new() };
        match lines.recv_timeout(patience) {
            Ok(line) => child.greeting = line,
            Err(RecvTimeoutError::Timeout) => return Err(child.not_serving(patience)),
            Err(RecvTimeoutError::Disconnected) => return Err(child.why_ended()),
        }
        Ok(child)
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().ok().flatten()
    }

    pub(super) fn signal_kill(&mut self) -> Result<(), Failure> {
        self.signal(Signal::KILL)
    }

    pub(super) fn signal_stop(&mut self) -> Result<(), Failure> {
        self.signal(Signal::TERM)
    }

    /// Stops it from running, or lets it run again, without ending it.
    pub fn pause(&mut self, pause: bool) -> Result<(), Failure> {
        self.signal(if pause { Signal::STOP } else { Signal::CONT })
    }

    pub(super) fn kill(mut self) -> Result<(), Failure> {
        self.signal_kill()?;
        self.wait()
    }

    /// Waits for an end that was asked for; a process that takes longer is killed, and that is an error.
    pub(super) fn wait_stopped(mut self, patience: Duration) -> Result<(), Failure> {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if let Some(status) = self.ended() {
                return if status.success() { Ok(()) } else { Err(self.ended_badly(status)) };
            }
            std::thread::sleep(POLL);
        }
        let message = format!("process {} did not end within {patience:?} and was killed", self.id());
        self.kill()?;
        Err(Failure::new(Exit::Other, message, "look at its log: what was it waiting for?"))
    }

    fn signal(&mut self, signal: Signal) -> Result<(), Failure> {
        if self.ended().is_some() {
            return Ok(());
        }
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw).expect("a child has a process id");
        kill_process(pid, signal).map_err(|error| {
            Failure::new(Exit::Other, format!("cannot signal process {}: {error}", self.id()), "stop it by hand")
        })
    }

    fn wait(&mut self) -> Result<(), Failure> {
        self.process.wait().map(|_| ()).map_err(|error| {
            Failure::new(Exit::Other, format!("cannot wait for process {}: {error}", self.id()), "stop it by hand")
        })
    }

    fn not_serving(&self, patience: Duration) -> Failure {
        let message = format!("process {} did not serve within {patience:?}", self.id());
        Failure::new(Exit::Unavailable, message, self.see_log())
    }

    /// It has closed its standard output, so it is about to end, or has.
    fn why_ended(&mut self) -> Failure {
        match self.process.wait() {
            Ok(status) => self.ended_badly(status),
            Err(error) => Failure::new(Exit::Other, format!("process {}: {error}", self.id()), self.see_log()),
        }
    }

    fn ended_badly(&self, status: ExitStatus) -> Failure {
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        let exit = Exit::ALL.iter().copied().find(|exit| Some(*exit as u8) == code && *exit != Exit::Done);
        let message = format!("process {} ended: {status}", self.process.id());
        Failure::new(exit.unwrap_or(Exit::Other), message, self.see_log())
    }

    fn see_log(&self) -> String {
        format!("see {}", self.log.display())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.ended().is_none() {
            // Nobody is left to tell; the process is ours, and it must not outlive us.
            if self.process.kill().is_ok() {
                self.process.wait().ok();
            }
        }
    }
}

fn cannot_start(program: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Other, format!("cannot start {}: {error}", program.display()), "check that the program is there")
}
