//! The binary as a script sees it: exit codes, standard output, standard error.

use std::process::{Command, Output};

use crate::processes::beside_few;

fn trilith(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_trilith")).args(arguments).output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("output is UTF-8")
}

#[test]
fn help_and_version_are_no_failures() {
    let _share = beside_few();
    for argument in ["--help", "--version", "help"] {
        let output = trilith(&[argument]);
        assert_eq!(output.status.code(), Some(0), "{argument}");
        assert!(text(&output.stdout).contains("trilith"), "{argument}: {output:?}");
        assert!(output.stderr.is_empty(), "{argument}: {output:?}");
    }
}

#[test]
fn what_is_no_command_is_a_usage_error() {
    let _share = beside_few();
    for arguments in [&["docter"][..], &["doctor", "--directry", "."], &["doctor", "-o", "xml"], &[]] {
        let output = trilith(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}: {output:?}");
    }
}

#[test]
fn a_failure_says_what_is_wrong_and_what_to_do() {
    let _share = beside_few();
    let output = trilith(&["doctor", "--directory", "no/such/directory"]);
    assert_eq!(output.status.code(), Some(2));
    let lines: Vec<&str> = text(&output.stderr).lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("error: no/such/directory: "), "{lines:?}");
    assert!(lines[1].starts_with("next: "), "{lines:?}");
}

#[test]
fn the_doctor_fails_exactly_if_a_finding_is_bad() {
    let _share = beside_few();
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

#[test]
fn a_command_for_a_cluster_says_how_to_name_one() {
    let _share = beside_few();
    for arguments in
        [&["log", "append", "-"][..], &["log", "read", "--from", "1"], &["kv", "get", "k"], &["cluster", "status"]]
    {
        let output = Command::new(env!("CARGO_BIN_EXE_trilith"))
            .args(arguments)
            .env_remove("TRILITH_CLIENT")
            .output()
            .expect("the binary runs");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(text(&output.stderr).contains("next: give --client FILE"), "{arguments:?}: {output:?}");
    }
    let newest = trilith(&["log", "read", "--from", "1", "--read", "newest"]);
    assert_eq!(newest.status.code(), Some(2), "{newest:?}");
    assert!(text(&newest.stderr).contains("linearizable, lease, at-least=INDEX or stale"), "{newest:?}");
}

#[test]
fn certificates_are_made_and_shown() {
    let _share = beside_few();
    let directory = tempfile::tempdir().expect("a directory can be made");
    let path = directory.path().to_str().expect("its name is UTF-8");
    let made = trilith(&["cert", "ca", "--directory", path]);
    assert_eq!(made.status.code(), Some(0), "{made:?}");
    let node = trilith(&["cert", "node", "2", "--authority", path, "--directory", path]);
    assert_eq!(node.status.code(), Some(0), "{node:?}");
    let file = directory.path().join("node-2.pem");
    let shown = trilith(&["cert", "show", file.to_str().expect("UTF-8"), "-o", "json"]);
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).expect("one JSON document");
    assert_eq!((&shown["role"], &shown["name"], &shown["is_valid_now"]), (&"node".into(), &"2".into(), &true.into()));
    let again = trilith(&["cert", "ca", "--directory", path]);
    assert_eq!(again.status.code(), Some(2), "{again:?}");
}

#[test]
fn a_cluster_that_is_not_there_is_unavailable() {
    let _share = beside_few();
    let directory = tempfile::tempdir().expect("a directory can be made");
    let path = directory.path().to_str().expect("its name is UTF-8");
    let cluster = "000000000000000000000000000000aa";
    for arguments in [
        &["cert", "ca", "--directory", path, "--cluster", cluster][..],
        &["cert", "client", "app", "--authority", path, "--directory", path],
    ] {
        assert_eq!(trilith(arguments).status.code(), Some(0));
    }
    let configuration = directory.path().join("client.toml");
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let address = socket.local_addr().expect("it is bound");
    let content = format!(
        "cluster = \"{cluster}\"\ncertificate = \"client-app.pem\"\nkey = \"client-app.key\"\nca = \"ca.pem\"\n\n\
         [[node]]\nid = 1\naddress = \"{address}\"\n"
    );
    std::fs::write(&configuration, content).expect("the directory is writable");
    let client = configuration.to_str().expect("UTF-8");
    let put = trilith(&["kv", "put", "k", "v", "--client", client, "--timeout", "0.3"]);
    assert_eq!(put.status.code(), Some(16), "{put:?}");
    let status = trilith(&["cluster", "status", "-o", "json", "--client", client, "--timeout", "0.3"]);
    assert_eq!(status.status.code(), Some(16), "{status:?}");
    let document: serde_json::Value = serde_json::from_slice(&status.stdout).expect("one JSON document");
    assert_eq!(document["nodes"][0]["id"], 1);
    assert!(document["nodes"][0]["error"].is_string());
}
