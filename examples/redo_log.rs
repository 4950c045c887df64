//! A table in memory that survives a crash: its changes are in the log before they are in the table.
//!
//!     cargo run --example redo_log [DIRECTORY [KEY=VALUE]]

use std::path::{Path, PathBuf};
use std::{collections::BTreeMap, error::Error, fs, process};

use trilith::types::{GroupId, Index, LogId, Payload, Term};
use trilith::wal::{Wal, handle::Options};

const GROUP: GroupId = GroupId(0);

/// A table, and the log of its changes since the last checkpoint, which is a file with all rows.
struct Table {
    rows: BTreeMap<String, String>,
    wal: Wal,
}

impl Table {
    /// The checkpoint, and then what the log has behind it.
    fn open(home: &Path) -> Result<Table, Box<dyn Error>> {
        fs::create_dir_all(home)?;
        fs::File::open(home.canonicalize()?.parent().unwrap_or(home))?.sync_all()?;
        let (wal, _) = Wal::open(Options { segment_bytes: 1 << 20, ..Options::new(home.join("wal")) })?;
        let checkpoint = home.join("checkpoint");
        let text = if checkpoint.try_exists()? { fs::read_to_string(checkpoint)? } else { "0\n".to_owned() };
        let (last, lines) = text.split_once('\n').ok_or("it begins with the index of its last change")?;
        let mut table = Table { rows: lines.split_terminator('\n').map(row).collect::<Result<_, _>>()?, wal };
        for entry in table.wal.iter(GROUP, Index(last.parse::<u64>()? + 1)) {
            let Payload::Data(data) = entry?.payload else { return Err("this is not a log of ours".into()) };
            table.rows.extend([row(std::str::from_utf8(&data.bytes)?)?]);
        }
        println!("{} rows: a checkpoint at {last}, and the log behind it", table.rows.len());
        Ok(table)
    }

    /// First checked, since it comes back at each start; then durable, and then applied.
    fn put(&mut self, change: &str) -> Result<(), Box<dyn Error>> {
        let row = row(change)?;
        self.wal.append_records(GROUP, [change.to_owned()])?.wait()?;
        self.rows.extend([row]);
        Ok(())
    }

    /// First the file, whole and durable under its name; only then may the log end before it.
    fn save(&self, home: &Path) -> Result<(), Box<dyn Error>> {
        let Some(last) = Some(self.wal.durable_index(GROUP)).filter(|&last| last > Index::ZERO) else { return Ok(()) };
        let rows: String = self.rows.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
        fs::write(home.join("new"), format!("{last}\n{rows}"))?;
        fs::File::open(home.join("new"))?.sync_all()?;
        fs::rename(home.join("new"), home.join("checkpoint"))?;
        fs::File::open(home)?.sync_all()?;
        Ok(self.wal.purge_prefix(GROUP, LogId::new(Term(1), last))?.wait().map(drop)?)
    }
}

fn row(line: &str) -> Result<(String, String), String> {
    let row = line.split_once('=').filter(|_| !line.contains('\n'));
    row.map(|(key, value)| (key.into(), value.into())).ok_or_else(|| format!("{line:?} is no line KEY=VALUE"))
}

fn main() -> Result<(), Box<dyn Error>> {
    let home = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("redo_log"), PathBuf::from);
    if let Some(first) = std::env::args().nth(2) {
        let mut table = Table::open(&home)?;
        table.save(&home)?;
        table.put(&first)?;
        (1..100).try_for_each(|number| table.put(&format!("key {number}=old")))?;
        table.save(&home)?;
        (50..120).try_for_each(|number| table.put(&format!("key {number}=new")))?;
        process::abort();
    }
    // This program again, as a process of its own, which crashes: a signal ends it, and it has no exit code.
    let ended = process::Command::new(std::env::current_exe()?).arg(&home).arg("key 0=old").status()?;
    let None = ended.code() else { return Err("it should have crashed".into()) };
    let table = Table::open(&home)?;
    println!("key 49 is {}, key 50 is {}", table.rows["key 49"], table.rows["key 50"]);
    Ok(table.wal.close()?)
}
