use std::collections::VecDeque;
use std::time::{Duration, Instant};
use trilith::{cli::configuration::ClientConfiguration, codec, net::*, types::*};
use bytes::Bytes;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let c = ClientConfiguration::load(a[1].as_ref()).unwrap();
    let in_flight: usize = a[2].parse().unwrap();
    let bytes: usize = a[3].parse().unwrap();
    let seconds: u64 = a[4].parse().unwrap();
    let batch: usize = in_flight.min(64);
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    rt.block_on(async {
        let id = Identity::load(&c.certificate, &c.key, &c.ca, None).unwrap();
        // find leader
        let mut address = c.nodes[0].address;
        let (conn, mut resp) = loop {
            let (conn, mut resp) = ClientConnection::connect(&id, address).await.unwrap();
            conn.send(&Request { id: 1, body: RequestBody::Status }).await.unwrap();
            let r = resp.next().await.unwrap();
            if let ResponseBody::Status(s) = r.body {
                if let Some((l, ad)) = s.leader { if l == s.id { break (conn, resp); } address = ad; } else { tokio::time::sleep(Duration::from_millis(100)).await; }
            }
        };
        let sessions = in_flight.div_ceil(1024).max(1);
        let mut ids = Vec::new();
        for s in 0..sessions {
            let cmd = Command { service: Service::Register, session: SessionId(0), number: RequestNumber(0), lowest_unanswered: RequestNumber(0) };
            conn.send(&Request { id: 10 + s as u64, body: RequestBody::Submit { commands: vec![codec::encode_command(&cmd, b"")] } }).await.unwrap();
            match resp.next().await.unwrap().body { ResponseBody::Submitted { results } => match &results[0] { SubmitResult::Run { first, .. } => ids.push(SessionId(first.0)), o => panic!("{o:?}") }, o => panic!("{o:?}") }
        }
        let body = Bytes::from(vec![7u8; bytes]);
        let start = Instant::now();
        let mut next = vec![1u64; sessions];
        let mut lowest = vec![1u64; sessions];
        let mut outstanding: VecDeque<(usize, Instant)> = VecDeque::new();
        let mut lat = Vec::new();
        let mut done = 0u64; let mut rid = 100u64; let mut s = 0;
        loop {
            while outstanding.len() * batch < in_flight && start.elapsed() < Duration::from_secs(seconds) {
                let mut commands = Vec::with_capacity(batch);
                for _ in 0..batch { let cmd = Command { service: Service::Append, session: ids[s], number: RequestNumber(next[s]), lowest_unanswered: RequestNumber(lowest[s]) }; next[s]+=1; commands.push(codec::encode_command(&cmd, &body)); }
                conn.send(&Request { id: rid, body: RequestBody::Submit { commands } }).await.unwrap(); rid += 1;
                outstanding.push_back((s, Instant::now())); s = (s + 1) % sessions;
            }
            if outstanding.is_empty() { break; }
            let r = resp.next().await.unwrap();
            match r.body { ResponseBody::Submitted { results } => { match &results[..] { [SubmitResult::Run { count, .. }] if *count as usize == batch => {}, o => panic!("{o:?}") } }, o => panic!("{o:?}") }
            let (ss, t) = outstanding.pop_front().unwrap(); lat.push(t.elapsed()); done += batch as u64; lowest[ss] += batch as u64;
        }
        let e = start.elapsed().as_secs_f64(); lat.sort();
        println!("in_flight {in_flight} x {bytes}: {:.0}/s p50 {:?} p99 {:?} max {:?}", done as f64 / e, lat[lat.len()/2], lat[lat.len()*99/100], lat.last().unwrap());
        conn.send(&Request { id: 5, body: RequestBody::Status }).await.unwrap();
        if let ResponseBody::Status(s) = resp.next().await.unwrap().body { println!("records {} flushes {} ({:.1}/flush)", s.records, s.flushes, s.records as f64 / s.flushes as f64); }
    });
}
