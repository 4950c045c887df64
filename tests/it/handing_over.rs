//! `trilith cluster transfer` ends when the other node leads, and else says why it does not.

use std::time::Instant;

use rustix::process::{Signal, kill_process};
use trilith::types::NodeId;

use crate::member_waits::{order, pid, told};
use crate::processes::{Trial, beside_few};

const USAGE: i32 = 2;
const UNAVAILABLE: i32 = 16;

#[test]
fn a_transfer_is_answered_when_the_other_leads_and_else_with_the_cause() {
    let _share = beside_few();
    let trial = Trial::start(3, None);
    let leader = trial.leader();
    let others: Vec<NodeId> = (1..=3).map(NodeId).filter(|node| *node != leader).collect();
    let (next, hung) = (others[0].to_string(), others[1]);
    let transfer = |to: &str| order(&trial, &["transfer", "--to", to, "--timeout", "30"]);
    let begin = Instant::now();
    told(&transfer(&next), 0, &[&format!("node {next} leads, in term ")]);
    println!("  a transfer: {:.1?}", begin.elapsed());
    assert_eq!(trial.leader(), others[0], "it leads when the command has ended");
    told(&transfer(&next), 0, &[&format!("node {next} leads already, in term ")]);
    let json = order(&trial, &["transfer", "--to", &leader.to_string(), "--timeout", "30", "-o", "json"]);
    told(&json, 0, &[&format!("\"leader\": {leader}"), "\"term\": ", "\"already\": false"]);
    told(&transfer("9"), USAGE, &["node 9 is no member", "trilith cluster status"]);
    let stopped = pid(&trial, hung);
    kill_process(stopped, Signal::STOP).expect("it is a child");
    let vain = order(&trial, &["transfer", "--to", &hung.to_string(), "--timeout", "3"]);
    kill_process(stopped, Signal::CONT).expect("it is a child");
    told(&vain, UNAVAILABLE, &["does not lead, after 3s", &format!("node {hung} does not answer"), "may be run again"]);
    told(&transfer(&hung.to_string()), 0, &[&format!("node {hung} leads")]);
}
