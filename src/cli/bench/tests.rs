use clap::Parser;

use super::{Arguments, Command, run, wal};

#[derive(Debug, clap::Parser)]
struct Line {
    #[command(flatten)]
    arguments: Arguments,
}

#[test]
fn a_run_leaves_nothing_behind() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().to_str().unwrap();
    let reading = &["--seconds", "3", "--read-mb-per-second", "20", "--bytes", "1024"];
    for load in [
        &["--seconds", "1", "--threads", "2"][..],
        &["--seconds", "1", "--in-flight", "64", "--batch", "4", "-o", "json"],
        reading,
    ] {
        let line = [&["bench", "wal", "--io", "blocking", "--directory", directory], load].concat();
        run(&Line::try_parse_from(line).unwrap().arguments).unwrap();
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
    }
}

#[test]
fn a_run_of_a_fixed_number_of_records_ends_with_them() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().to_str().unwrap();
    for load in [&["--threads", "3"][..], &["--threads", "2", "--in-flight", "64"]] {
        let line = [&["bench", "wal", "--records", "1000", "--directory", directory], load].concat();
        let Command::Wal(arguments) = Line::try_parse_from(line).unwrap().arguments.command else { panic!() };
        let report: serde_json::Value = serde_json::from_str(&wal::measure(&arguments).unwrap().json()).unwrap();
        let records = report["records"].as_u64().unwrap();
        // What lets old segments go is a record, too, one each 100 ms.
        assert!((1000..1100).contains(&records), "{records}");
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    for wrong in
        [["--bytes", "0"], ["--bytes", "1048577"], ["--in-flight", "0"], ["--writes-in-flight", "9"], ["--io", "magic"]]
    {
        let line = [&["bench", "wal"][..], &wrong].concat();
        assert!(Line::try_parse_from(line).is_err(), "{wrong:?}");
    }
    let line = ["bench", "wal", "--directory", "no/such/directory"];
    let failure = run(&Line::try_parse_from(line).unwrap().arguments).unwrap_err();
    assert!(failure.to_string().contains("no/such/directory"), "{failure}");
}
