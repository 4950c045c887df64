//! Findings, and how they are printed.

use serde::Serialize;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    /// Works, but slower or less safely than it could.
    Warn,
    /// A log here would lose data or not run.
    Bad,
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    pub name: &'static str,
    pub value: String,
    pub verdict: Verdict,
    /// There unless the verdict is ok.
    pub next_step: Option<String>,
}

impl Finding {
    pub fn ok(name: &'static str, value: impl Into<String>) -> Finding {
        Finding { name, value: value.into(), verdict: Verdict::Ok, next_step: None }
    }

    pub fn warn(name: &'static str, value: impl Into<String>, next_step: impl Into<String>) -> Finding {
        Finding { name, value: value.into(), verdict: Verdict::Warn, next_step: Some(next_step.into()) }
    }

    pub fn bad(name: &'static str, value: impl Into<String>, next_step: impl Into<String>) -> Finding {
        Finding { name, value: value.into(), verdict: Verdict::Bad, next_step: Some(next_step.into()) }
    }
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Bad => "bad",
        }
    }
}

/// One line for each finding, and one below it for what to do.
pub fn table(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.name.len()).max().unwrap_or(0);
    let mut out = String::new();
    for finding in findings {
        let word = finding.verdict.word();
        out.push_str(&format!("{word:<4}  {:<width$}  {}\n", finding.name, finding.value));
        if let Some(next_step) = &finding.next_step {
            out.push_str(&format!("{:6}{:<width$}  -> {next_step}\n", "", ""));
        }
    }
    out
}

/// An array of objects with name, value, verdict, next_step.
pub fn json(findings: &[Finding]) -> String {
    serde_json::to_string_pretty(findings).expect("findings are strings, which JSON holds")
}
