//! A client of the cluster that a bench has made.

use std::time::Duration;

use trilith::cli::configuration::ClientConfiguration;
use trilith::client::{Client, ClientOptions};
use trilith::net::Identity;

/// As whom the configuration says, once a leader is elected.
pub async fn connect(configuration: &ClientConfiguration, patience: Duration) -> Client {
    let identity = Identity::load(&configuration.certificate, &configuration.key, &configuration.ca, None);
    let nodes = configuration.nodes.iter().map(|node| (node.id, node.address)).collect();
    let options = ClientOptions {
        timeout: patience,
        ..ClientOptions::new(nodes, identity.expect("the certificates were made with the cluster"))
    };
    Client::connect(options).await.expect("a leader is elected")
}
