//! `trilith cert`: makes and shows certificates.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;

use super::access::certificate_failure;
use super::exit::{Exit, Failure};
use super::output::{self, Format};
use crate::net::certificate::{Authority, Description, Issued, Validity, show};
use crate::net::{CertificateError, Role, pem};
use crate::random::entropy;
use crate::types::{ClusterId, NodeId};

/// How long a certificate is good unless told otherwise: an authority outlives what it issues.
const AUTHORITY_DAYS: u32 = 3650;
const ISSUED_DAYS: u32 = 365;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a cluster's authority: ca.pem, and ca.key, which no node needs
    Ca {
        /// Where to put them
        #[arg(long, alias = "dir", value_name = "DIR", default_value = ".")]
        directory: PathBuf,
        /// The cluster's id, 32 hexadecimal digits; drawn at random if it is not given
        #[arg(long, value_name = "ID", value_parser = parse_cluster)]
        cluster: Option<ClusterId>,
        /// For how long it is good
        #[arg(long, value_name = "DAYS", default_value_t = AUTHORITY_DAYS, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: u32,
    },
    /// Make a node's certificate: node-ID.pem and node-ID.key
    Node {
        id: u64,
        #[command(flatten)]
        issue: Issue,
    },
    /// Make a client's certificate: client-NAME.pem and client-NAME.key
    Client {
        name: String,
        #[command(flatten)]
        issue: Issue,
    },
    /// Make the certificate of an administrator, who may change the cluster: admin-NAME.pem and admin-NAME.key
    Admin {
        name: String,
        #[command(flatten)]
        issue: Issue,
    },
    /// Say what a certificate is for, and until when it is good
    Show {
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// How to print it
        #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
        output: Format,
    },
}

#[derive(Debug, clap::Args)]
struct Issue {
    /// Where ca.pem and ca.key are
    #[arg(long, value_name = "DIR", default_value = ".")]
    authority: PathBuf,
    /// Where to put certificate and key
    #[arg(long, alias = "dir", value_name = "DIR", default_value = ".")]
    directory: PathBuf,
    /// For how long it is good
    #[arg(long, value_name = "DAYS", default_value_t = ISSUED_DAYS, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: u32,
}

/// What `cert show` prints.
#[derive(Serialize)]
struct Shown {
    role: &'static str,
    /// A node's id, a client's or administrator's name.
    name: Option<String>,
    cluster: String,
    valid_from: String,
    valid_until: String,
    /// Not before its time, and not after.
    is_valid_now: bool,
    serial: String,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.command {
        Command::Ca { directory, cluster, days } => {
            let drawn = || ClusterId(u128::from(entropy()) << 64 | u128::from(entropy()));
            make_authority(directory, cluster.unwrap_or_else(drawn), *days)
        }
        Command::Node { id, issue } => issue.make(&Role::Node(NodeId(*id)), &format!("node-{id}")),
        Command::Client { name, issue } => issue.make(&Role::Client(name.clone()), &format!("client-{name}")),
        Command::Admin { name, issue } => issue.make(&Role::Admin(name.clone()), &format!("admin-{name}")),
        Command::Show { file, output } => {
            let text = pem::read_public(file).map_err(certificate_failure)?;
            let described = show(&text).map_err(|error| named(file, certificate_failure(error)))?;
            let shown = Shown::of(&described, SystemTime::now());
            output::print(&match output {
                Format::Table => shown.table(),
                Format::Json => serde_json::to_string_pretty(&shown).expect("strings fit JSON"),
            })
        }
    }
}

fn make_authority(directory: &Path, cluster: ClusterId, days: u32) -> Result<(), Failure> {
    let authority = Authority::create(cluster, Validity::days(days)).map_err(certificate_failure)?;
    write(authority.pem(), directory, "ca")?;
    output::print(&format!("cluster {cluster}\nkeep {} away from the nodes", directory.join("ca.key").display()))
}

impl Issue {
    fn make(&self, role: &Role, stem: &str) -> Result<(), Failure> {
        let certificate = pem::read_public(&self.authority.join("ca.pem")).map_err(without_authority)?;
        let key = pem::read_key(&self.authority.join("ca.key")).map_err(without_authority)?;
        let authority = Authority::from_pem(&certificate, &key).map_err(certificate_failure)?;
        let issued = authority.issue(role, Validity::days(self.days)).map_err(certificate_failure)?;
        let written = write(&issued, &self.directory, stem)?;
        output::print(&written.display().to_string())
    }
}

/// Writes `stem.pem` and `stem.key`, if neither is there.
fn write(issued: &Issued, directory: &Path, stem: &str) -> Result<PathBuf, Failure> {
    let (certificate, key) = (directory.join(format!("{stem}.pem")), directory.join(format!("{stem}.key")));
    if let Some(there) = [&certificate, &key].into_iter().find(|path| path.exists()) {
        let message = format!("{}: the file is there already", there.display());
        return Err(Failure::new(Exit::Usage, message, "nothing was written: move it away, or name another directory"));
    }
    pem::write(issued, &certificate, &key).map_err(|error| {
        Failure::new(Exit::Usage, error.to_string(), "name a directory that exists and that this user may write to")
    })?;
    Ok(certificate)
}

fn without_authority(error: CertificateError) -> Failure {
    let next_step = "name the directory of ca.pem and ca.key with --authority; `trilith cert ca` makes them";
    Failure::new(Exit::Certificate, error.to_string(), next_step)
}

fn named(file: &Path, failure: Failure) -> Failure {
    Failure { message: format!("{}: {}", file.display(), failure.message), ..failure }
}

impl Shown {
    fn of(description: &Description, now: SystemTime) -> Shown {
        let Description { name, cluster, validity, serial } = description;
        let (role, name) = match name.as_ref().map(|name| &name.role) {
            None => ("authority", None),
            Some(Role::Node(id)) => ("node", Some(id.to_string())),
            Some(Role::Client(name)) => ("client", Some(name.clone())),
            Some(Role::Admin(name)) => ("admin", Some(name.clone())),
        };
        Shown {
            role,
            name,
            cluster: cluster.to_string(),
            valid_from: date(validity.from),
            valid_until: date(validity.until),
            is_valid_now: (validity.from..validity.until).contains(&now),
            serial: serial.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }

    fn table(&self) -> String {
        let name = self.name.as_deref().map(|name| format!(" {name}")).unwrap_or_default();
        let now = if self.is_valid_now { "valid now" } else { "NOT valid now" };
        format!(
            "role     {}{name}\ncluster  {}\nvalid    {} to {} ({now})\nserial   {}",
            self.role, self.cluster, self.valid_from, self.valid_until, self.serial
        )
    }
}

/// As 2026-01-31T12:00:00Z.
fn date(time: SystemTime) -> String {
    let time = time::OffsetDateTime::from(time);
    let (year, month, day) = time.to_calendar_date();
    let (hour, minute, second) = time.to_hms();
    format!("{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z", u8::from(month))
}

fn parse_cluster(text: &str) -> Result<ClusterId, String> {
    let id = u128::from_str_radix(text, 16).ok().filter(|id| text.len() == 32 && *id != 0);
    id.map(ClusterId).ok_or_else(|| "32 hexadecimal digits, not all 0".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn make(command: Command) -> Result<(), Failure> {
        run(&Arguments { command })
    }

    fn issue(directory: &Path) -> Issue {
        Issue { authority: directory.to_owned(), directory: directory.to_owned(), days: 30 }
    }

    #[test]
    fn certificates_are_made_once_and_say_what_they_are() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let ca = || Command::Ca { directory: path.to_owned(), cluster: Some(ClusterId(7)), days: 30 };
        make(ca()).unwrap();
        make(Command::Node { id: 3, issue: issue(path) }).unwrap();
        make(Command::Client { name: "app".into(), issue: issue(path) }).unwrap();
        make(Command::Admin { name: "root".into(), issue: issue(path) }).unwrap();
        let expected = [
            ("ca", "authority", None),
            ("node-3", "node", Some("3")),
            ("client-app", "client", Some("app")),
            ("admin-root", "admin", Some("root")),
        ];
        for (stem, role, name) in expected {
            let text = pem::read_public(&path.join(format!("{stem}.pem"))).unwrap();
            let shown = Shown::of(&show(&text).unwrap(), SystemTime::now());
            assert_eq!((shown.role, shown.name.as_deref(), shown.is_valid_now), (role, name, true));
            assert_eq!(shown.cluster, ClusterId(7).to_string());
            assert!(shown.table().contains("valid now"));
            let key = std::fs::metadata(path.join(format!("{stem}.key"))).unwrap();
            assert_eq!(key.permissions().mode() & 0o777, 0o600);
        }
        let before = std::fs::read(path.join("ca.key")).unwrap();
        assert_eq!(make(ca()).unwrap_err().exit, Exit::Usage);
        assert_eq!(std::fs::read(path.join("ca.key")).unwrap(), before, "nothing is overwritten");
        std::fs::remove_file(path.join("node-3.pem")).unwrap();
        assert_eq!(make(Command::Node { id: 3, issue: issue(path) }).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn what_cannot_be_made_or_shown_says_why() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let refused = make(Command::Node { id: 3, issue: issue(path) }).unwrap_err();
        assert!(refused.exit == Exit::Certificate && refused.next_step.contains("--authority"), "{refused}");
        make(Command::Ca { directory: path.to_owned(), cluster: None, days: 30 }).unwrap();
        let refused = make(Command::Node { id: 0, issue: issue(path) }).unwrap_err();
        assert_eq!(refused.exit, Exit::Usage);
        let refused = make(Command::Client { name: "../x".into(), issue: issue(path) }).unwrap_err();
        assert_eq!(refused.exit, Exit::Usage);
        let refused = make(Command::Show { file: path.join("ca.key"), output: Format::Table }).unwrap_err();
        assert_eq!(refused.exit, Exit::Certificate);
    }

    #[test]
    fn dates_are_written_in_full() {
        assert_eq!(date(SystemTime::UNIX_EPOCH), "1970-01-01T00:00:00Z");
        assert_eq!(parse_cluster("0000000000000000000000000000000a"), Ok(ClusterId(10)));
        assert!(parse_cluster("a").is_err() && parse_cluster(&"0".repeat(32)).is_err());
    }
}
