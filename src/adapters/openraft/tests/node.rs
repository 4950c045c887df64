//! A whole openraft node of one: what its clients were told is applied again after it was closed.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use openraft::error::{InstallSnapshotError, RPCError, RaftError, Unreachable};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
    VoteResponse,
};
use openraft::{Config, Raft, SnapshotPolicy};
use tempfile::TempDir;

use super::Types;
use super::durable::{block_on, open};
use super::machine::Memory;
use crate::adapters::openraft::LogStorage;

/// Nobody is there.
struct Alone;

fn nobody<E: std::error::Error>() -> RPCError<u64, (), E> {
    RPCError::Unreachable(Unreachable::new(&io::Error::from(io::ErrorKind::NotConnected)))
}

impl RaftNetworkFactory<Types> for Alone {
    type Network = Alone;

    async fn new_client(&mut self, _target: u64, _node: &()) -> Alone {
        Alone
    }
}

impl RaftNetwork<Types> for Alone {
    async fn append_entries(
        &mut self,
        _request: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RPCError<u64, (), RaftError<u64>>> {
        Err(nobody())
    }

    async fn install_snapshot(
        &mut self,
        _request: InstallSnapshotRequest<Types>,
        _option: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, RPCError<u64, (), RaftError<u64, InstallSnapshotError>>> {
        Err(nobody())
    }

    async fn vote(
        &mut self,
        _request: VoteRequest<u64>,
        _option: RPCOption,
    ) -> Result<VoteResponse<u64>, RPCError<u64, (), RaftError<u64>>> {
        Err(nobody())
    }
}

async fn start(home: &TempDir, memory: &Memory) -> Raft<Types> {
    let log = LogStorage::open(Arc::new(open(home)), 0).unwrap();
    // The machine forgets: everything must come from the log.
    let config = Config { snapshot_policy: SnapshotPolicy::Never, ..Config::default() };
    Raft::new(7, Arc::new(config), Alone, log, memory.clone()).await.unwrap()
}

#[test]
fn a_node_of_one_comes_back_with_all_that_was_told() {
    let home = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    for life in 0..3 {
        let memory = Memory::default();
        block_on(async {
            let raft = start(&home, &memory).await;
            if life == 0 {
                raft.initialize(BTreeSet::from([7])).await.unwrap();
            }
            raft.wait(None).current_leader(7, "it elects itself").await.unwrap();
            for number in 0..20 {
                expected.push(format!("{life}/{number}"));
                raft.client_write(format!("{life}/{number}")).await.unwrap();
            }
            assert_eq!(memory.lines(), expected);
            raft.shutdown().await.unwrap();
        });
    }
}
