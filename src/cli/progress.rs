//! How far something is that takes long: said on standard error, which scripts need not read.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::output;

/// Where nobody looks on, a line is written so often.
const LINE_INTERVAL: Duration = Duration::from_secs(3);

/// A bar if a person looks on, and a line every few seconds otherwise. Nothing is said of what is done sooner.
#[derive(Debug)]
pub struct Meter {
    bar: Option<ProgressBar>,
    line_due: Instant,
}

impl Meter {
    pub fn new() -> Meter {
        let bar = std::io::stderr().is_terminal().then(|| ProgressBar::no_length().with_style(style(false)));
        Meter { bar, line_due: Instant::now() + LINE_INTERVAL }
    }

    /// So much is done; all of it, if that is known, is `bytes`.
    pub fn show(&mut self, what: &str, bytes_here: u64, bytes: Option<u64>) {
        if let Some(bar) = &self.bar {
            if bytes != bar.length() {
                bar.set_style(style(bytes.is_some()));
                bytes.map_or_else(|| bar.unset_length(), |bytes| bar.set_length(bytes));
            }
            bar.set_message(what.to_owned());
            bar.set_position(bytes_here);
        } else if Instant::now() >= self.line_due {
            self.line_due = Instant::now() + LINE_INTERVAL;
            output::complain(&line(what, bytes_here, bytes));
        }
    }

    /// Says something that stays.
    pub fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| output::complain(&text)),
            None => output::complain(&text),
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn line(what: &str, bytes_here: u64, bytes: Option<u64>) -> String {
    match bytes {
        Some(bytes) => {
            let percent = u128::from(bytes_here) * 100 / u128::from(bytes.max(1));
            format!("{what}: {bytes_here} of {bytes} bytes ({percent} %)")
        }
        None => format!("{what}: {bytes_here} bytes"),
    }
}

fn style(knows_end: bool) -> ProgressStyle {
    let template = match knows_end {
        true => "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        false => "{msg} {bytes} {bytes_per_sec}",
    };
    ProgressStyle::with_template(template).expect("the template is well-formed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_much_of_how_much() {
        assert_eq!(line("fetched", 50, Some(200)), "fetched: 50 of 200 bytes (25 %)");
        assert_eq!(line("fetched", 0, Some(0)), "fetched: 0 of 0 bytes (0 %)");
        assert_eq!(line("written", 7, None), "written: 7 bytes");
        assert_eq!(line("fetched", u64::MAX, Some(u64::MAX)), format!("fetched: {0} of {0} bytes (100 %)", u64::MAX));
    }
}
