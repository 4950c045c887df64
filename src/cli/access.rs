//! How commands reach a cluster: the client's configuration, a runtime, and errors as exit codes.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use super::configuration::ClientConfiguration;
use super::exit::{Exit, Failure};
use crate::client::{Client, ClientOptions, Error};
use crate::limits::CLIENT_TIMEOUT_DEFAULT;
use crate::machine::command;
use crate::net::{CertificateError, Identity, Refusal};

/// The variable that names the client's configuration where no flag does.
const VARIABLE: &str = "TRILITH_CLIENT";

/// Flags of every command that talks to a cluster.
#[derive(Clone, Debug, clap::Args)]
pub struct ClientArguments {
    /// The client's configuration; without it, the variable TRILITH_CLIENT names it
    #[arg(long, value_name = "FILE")]
    client: Option<PathBuf>,
    /// How long to wait for an outcome
    #[arg(long, value_name = "SECONDS", value_parser = parse_timeout, default_value_t = Seconds(CLIENT_TIMEOUT_DEFAULT))]
    timeout: Seconds,
}

/// Flags of every command that writes records or keys.
#[derive(Clone, Debug, clap::Args)]
pub struct WriteArguments {
    /// Give the writes to the first node that answers, and let it pass them on to the leader; for clients that cannot
    /// reach every node. `forward = true` in the client's configuration means the same
    #[arg(long)]
    forward: bool,
    #[command(flatten)]
    client: ClientArguments,
}

/// A time on the command line, as a number of seconds.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Seconds(pub Duration);

impl std::fmt::Display for Seconds {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.as_secs_f64().fmt(formatter)
    }
}

impl ClientArguments {
    /// Finds the leader, or what the configuration says.
    pub async fn connect(&self) -> Result<Client, Failure> {
        Client::connect(self.options()?).await.map_err(failure)
    }

    /// For commands that need no leader.
    pub fn start(&self) -> Result<Client, Failure> {
        Client::start(self.options()?).map_err(failure)
    }

    fn options(&self) -> Result<ClientOptions, Failure> {
        options(&self.configuration()?, self.timeout.0)
    }

    /// The configuration that was named.
    pub fn configuration(&self) -> Result<ClientConfiguration, Failure> {
        Ok(ClientConfiguration::load(&self.path(std::env::var_os(VARIABLE).map(PathBuf::from))?)?)
    }

    /// How long to wait for an outcome.
    pub fn timeout(&self) -> Duration {
        self.timeout.0
    }

    /// Whether a cluster is named at all.
    pub fn names_cluster(&self) -> bool {
        self.client.is_some() || std::env::var_os(VARIABLE).is_some()
    }

    /// The same for what may take longer than other commands: a leader is not waited for as long.
    pub async fn connect_for(&self, wait: Duration) -> Result<Client, Failure> {
        let found = self.connect().await?;
        drop(found);
        connect(&self.configuration()?, wait).await
    }

    fn path(&self, variable: Option<PathBuf>) -> Result<PathBuf, Failure> {
        self.client.clone().or(variable).ok_or_else(|| {
            Failure::new(
                Exit::Usage,
                "no cluster is named: neither --client nor TRILITH_CLIENT is there",
                "give --client FILE; `trilith dev --dir D` writes one to D/client.toml",
            )
        })
    }
}

impl WriteArguments {
    /// Finds the leader, or a node that passes on what is written.
    pub async fn connect(&self) -> Result<Client, Failure> {
        Client::connect(self.options()?).await.map_err(failure)
    }

    /// The same, where nothing is to be written behind what is not.
    pub async fn connect_in_order(&self) -> Result<Client, Failure> {
        let options = ClientOptions { stops_at_failure: true, ..self.options()? };
        Client::connect(options).await.map_err(failure)
    }

    fn options(&self) -> Result<ClientOptions, Failure> {
        let options = self.client.options()?;
        let forward = self.forward || options.forward;
        Ok(ClientOptions { forward, ..options })
    }
}

/// Finds the leader of the cluster that a configuration names.
pub async fn connect(configuration: &ClientConfiguration, timeout: Duration) -> Result<Client, Failure> {
    Client::connect(options(configuration, timeout)?).await.map_err(failure)
}

/// Whom a configuration makes this process.
pub fn identity(configuration: &ClientConfiguration) -> Result<Identity, Failure> {
    let (certificate, key, ca) = (&configuration.certificate, &configuration.key, &configuration.ca);
    let identity = Identity::load(certificate, key, ca, configuration.crl.as_deref()).map_err(certificate_failure)?;
    if identity.name().cluster != configuration.cluster {
        let message = format!(
            "{}: the certificate belongs to cluster {}, the configuration to {}",
            certificate.display(),
            identity.name().cluster,
            configuration.cluster
        );
        return Err(Failure::new(Exit::Certificate, message, "name a certificate of that cluster's authority"));
    }
    Ok(identity)
}

fn options(configuration: &ClientConfiguration, timeout: Duration) -> Result<ClientOptions, Failure> {
    let nodes = configuration.nodes.iter().map(|node| (node.id, node.address)).collect();
    let forward = configuration.forward;
    Ok(ClientOptions { timeout, forward, ..ClientOptions::new(nodes, identity(configuration)?) })
}

/// Runs a command's asynchronous part to its end.
pub fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        Failure::new(Exit::Other, format!("no runtime: {error}"), "see whether this user may open more files")
    })?;
    let result = runtime.block_on(work);
    // A thread that still reads standard input is not waited for.
    runtime.shutdown_background();
    result
}

/// What a client was told, as the command ends.
pub fn failure(error: Error) -> Failure {
    let next_step = match &error {
        Error::Unavailable { .. } => "nothing was done: ask again; if it stays, see `trilith cluster status`",
        Error::OutcomeUnknown => "it may have happened: read before you ask again",
        Error::TooLarge { .. } => "make it smaller, or split it",
        Error::NoSpace => "free space on the nodes, or trim the log; writing resumes by itself",
        Error::Busy => "ask again later, with fewer requests in flight",
        Error::Trimmed { first } => return trimmed(&error, first.0),
        Error::Refused(Refusal::LeasesOff) => {
            "read with --read linearizable, or set lease_drift_percent on all nodes (docs/operations.md)"
        }
        Error::Refused(Refusal::MapAlone) => {
            "append to another cluster, or set `retention` to \"all\" on all nodes and start them again"
        }
        Error::Refused(Refusal::NotAllowed) => "use an admin's certificate: `trilith cert admin NAME` makes one",
        Error::Refused(Refusal::Impossible { .. }) => "nothing was changed; see `trilith cluster status`",
        Error::Refused(Refusal::SnapshotFailed { .. }) => {
            "writing goes on; mend what is named on the leader (`trilith cluster status` names it), and ask again"
        }
        Error::Refused(_) => "see whether client and nodes are of one version",
        Error::Machine(_) => "make key or value smaller",
        Error::NotTrusted(_) => "see `trilith cert show FILE`: cluster, authority and validity must fit the nodes'",
        Error::UnknownNode { .. } => "`trilith cluster status` lists the nodes",
        Error::Answer(_) | Error::WrongAnswer => "see whether client and nodes are of one version",
        Error::Options { .. } => "give a number within the limits",
    };
    Failure::new(exit(&error), error.to_string(), next_step)
}

pub fn certificate_failure(error: CertificateError) -> Failure {
    let exit = match &error {
        CertificateError::BadRole { .. } => Exit::Usage,
        _ => Exit::Certificate,
    };
    Failure::new(exit, error.to_string(), "mend what is named; `trilith cert show FILE` tells what a certificate says")
}

fn trimmed(error: &Error, first: u64) -> Failure {
    Failure::new(Exit::Other, error.to_string(), format!("begin at --from {first}"))
}

fn exit(error: &Error) -> Exit {
    match error {
        Error::Unavailable { .. } => Exit::Unavailable,
        Error::OutcomeUnknown => Exit::OutcomeUnknown,
        Error::TooLarge { .. } | Error::UnknownNode { .. } | Error::Options { .. } => Exit::Usage,
        Error::Machine(command::Refusal::TooLarge) => Exit::Usage,
        Error::Refused(Refusal::TooLarge { .. } | Refusal::Impossible { .. }) => Exit::Usage,
        Error::NoSpace => Exit::NoSpace,
        Error::Busy => Exit::Busy,
        Error::Refused(Refusal::LeasesOff | Refusal::MapAlone) => Exit::Usage,
        Error::NotTrusted(_) | Error::Refused(Refusal::NotAllowed) => Exit::Certificate,
        Error::Trimmed { .. } | Error::Refused(_) | Error::Machine(_) | Error::Answer(_) | Error::WrongAnswer => {
            Exit::Other
        }
    }
}

/// As a timeout, and 0 for not at all.
pub fn parse_wait(text: &str) -> Result<Seconds, String> {
    if text == "0" { Ok(Seconds(Duration::ZERO)) } else { parse_timeout(text) }
}

pub fn parse_timeout(text: &str) -> Result<Seconds, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds, as 5 or 0.5".to_owned())?;
    match (0.001..=3600.0).contains(&seconds) {
        true => Ok(Seconds(Duration::from_secs_f64(seconds))),
        false => Err("from 0.001 to 3600 seconds".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Index, NodeId};

    #[test]
    fn each_error_ends_with_the_code_that_scripts_know() {
        let expected = [
            (Error::Unavailable { reason: "x".into() }, Exit::Unavailable),
            (Error::OutcomeUnknown, Exit::OutcomeUnknown),
            (Error::TooLarge { bytes: 2, max: 1 }, Exit::Usage),
            (Error::NoSpace, Exit::NoSpace),
            (Error::Busy, Exit::Busy),
            (Error::Trimmed { first: Index(7) }, Exit::Other),
            (Error::Refused(Refusal::NotAllowed), Exit::Certificate),
            (Error::Refused(Refusal::LeasesOff), Exit::Usage),
            (Error::Refused(Refusal::MapAlone), Exit::Usage),
            (Error::UnknownNode { node: NodeId(9) }, Exit::Usage),
        ];
        for (error, exit) in expected {
            let failure = failure(error);
            assert_eq!(failure.exit, exit, "{failure}");
            assert!(!failure.message.is_empty() && !failure.next_step.is_empty());
        }
    }

    #[test]
    fn times_are_seconds_within_bounds() {
        assert_eq!(parse_timeout("0.5"), Ok(Seconds(Duration::from_millis(500))));
        for text in ["0", "-1", "nan", "5s", "1e9", ""] {
            assert!(parse_timeout(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_missing_configuration_is_a_usage_error_and_the_flag_goes_over_the_variable() {
        let mut arguments = ClientArguments { client: None, timeout: Seconds(CLIENT_TIMEOUT_DEFAULT) };
        let refused = arguments.path(None).unwrap_err();
        assert_eq!(refused.exit, Exit::Usage);
        assert!(refused.next_step.contains("--client"));
        assert_eq!(arguments.path(Some("v".into())).unwrap(), PathBuf::from("v"));
        arguments.client = Some("f".into());
        assert_eq!(arguments.path(Some("v".into())).unwrap(), PathBuf::from("f"));
    }
}
