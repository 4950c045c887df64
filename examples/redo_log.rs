//! A table in memory that survives a crash: its changes are in the log before they are in the table.
//!
//!     cargo run --example redo_log [DIRECTORY]

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, abort};

use trilith::types::{GroupId, Index, LogId, Payload, Term};
use trilith::wal::Wal;
use trilith::wal::handle::Options;

const GROUP: GroupId = GroupId(0);

/// A table, and the log of its changes since the last checkpoint, which is a file with all rows.
struct Table {
    rows: BTreeMap<String, String>,
    wal: Wal,
    home: PathBuf,
}

impl Table {
    /// The checkpoint, and then what the log has behind it.
    fn open(home: &Path) -> Result<Table, Box<dyn Error>> {
        fs::create_dir_all(home)?;
        let (wal, _) = Wal::open(Options { segment_bytes: 1 << 20, ..Options::new(home.join("wal")) })?;
        let checkpoint = home.join("checkpoint");
        let text = if checkpoint.try_exists()? { fs::read_to_string(checkpoint)? } else { "0\n".to_owned() };
        let (last, changes) = text.split_once('\n').ok_or("it begins with the index of its last change")?;
        let mut table = Table { rows: changes.lines().map(row).collect(), wal, home: home.to_owned() };
        for entry in table.wal.iter(GROUP, Index(last.parse::<u64>()? + 1)) {
            let Payload::Data(data) = entry?.payload else { return Err("this is not a log of ours".into()) };
            table.rows.extend([row(std::str::from_utf8(&data.bytes)?)]);
        }
        println!("{} rows: a checkpoint at {last}, and the log behind it", table.rows.len());
        Ok(table)
    }

    /// First durable, then applied.
    fn put(&mut self, change: &str) -> Result<(), Box<dyn Error>> {
        self.wal.append_records(GROUP, [change.to_owned()])?.wait()?;
        self.rows.extend([row(change)]);
        Ok(())
    }

    /// First the file, whole and durable under its name; only then may the log end before it.
    fn save(&self) -> Result<(), Box<dyn Error>> {
        let last = self.wal.durable_index(GROUP);
        let rows: String = self.rows.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
        fs::write(self.home.join("new"), format!("{last}\n{rows}"))?;
        File::open(self.home.join("new"))?.sync_all()?;
        fs::rename(self.home.join("new"), self.home.join("checkpoint"))?;
        File::open(&self.home)?.sync_all()?;
        self.wal.purge_prefix(GROUP, LogId::new(Term(1), last))?.wait()?;
        Ok(())
    }
}

fn row(change: &str) -> (String, String) {
    change.split_once('=').map(|(key, value)| (key.into(), value.into())).expect("a change is KEY=VALUE")
}

fn main() -> Result<(), Box<dyn Error>> {
    let home = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("redo_log"), PathBuf::from);
    if std::env::args_os().nth(2).is_some() {
        let mut table = Table::open(&home)?;
        (0..100).try_for_each(|number| table.put(&format!("key {number}=old")))?;
        table.save()?;
        (50..120).try_for_each(|number| table.put(&format!("key {number}=new")))?;
        abort();
    }
    // This program again, as a process of its own, which crashes.
    Command::new(std::env::current_exe()?).arg(&home).arg("crash").status()?;
    let table = Table::open(&home)?;
    println!("key 49 is {}, key 50 is {}", table.rows["key 49"], table.rows["key 50"]);
    Ok(table.wal.close()?)
}
