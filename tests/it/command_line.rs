//! The binary as a script sees it: exit codes, standard output, standard error.

use std::process::{Command, Output};

fn trilith(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_trilith")).args(arguments).output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("output is UTF-8")
}

#[test]
fn help_and_version_are_no_failures() {
    for argument in ["--help", "--version", "help"] {
        let output = trilith(&[argument]);
        assert_eq!(output.status.code(), Some(0), "{argument}");
        assert!(text(&output.stdout).contains("trilith"), "{argument}: {output:?}");
        assert!(output.stderr.is_empty(), "{argument}: {output:?}");
    }
}

#[test]
fn what_is_no_command_is_a_usage_error() {
    for arguments in [&["docter"][..], &["doctor", "--directry", "."], &["doctor", "-o", "xml"], &[]] {
        let output = trilith(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}: {output:?}");
    }
}

#[test]
fn a_failure_says_what_is_wrong_and_what_to_do() {
    let output = trilith(&["doctor", "--directory", "no/such/directory"]);
    assert_eq!(output.status.code(), Some(2));
    let lines: Vec<&str> = text(&output.stderr).lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("error: no/such/directory: "), "{lines:?}");
    assert!(lines[1].starts_with("next: "), "{lines:?}");
}

#[test]
fn the_doctor_fails_exactly_if_a_finding_is_bad() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let path = directory.path().to_str().expect("its name is UTF-8");
    let output = trilith(&["doctor", "--directory", path, "-o", "json"]);
    let findings: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    let findings = findings.as_array().expect("an array");
    assert_eq!(findings.len(), 12);
    let bad = findings.iter().any(|finding| finding["verdict"] == "bad");
    assert_eq!(output.status.code(), Some(i32::from(bad)), "{output:?}");
    let table = trilith(&["doctor", "--directory", path]);
    assert_eq!(table.status.code(), output.status.code());
    for finding in findings {
        let name = finding["name"].as_str().expect("a name");
        assert!(text(&table.stdout).contains(name), "{name} is in both");
    }
}
