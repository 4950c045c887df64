//! The list by node beside the standard library's map, in random histories.

use std::collections::BTreeMap;

use crate::raft::by_node::ByNode;
use crate::random::Random;
use crate::types::NodeId;

#[test]
fn it_is_the_map_that_the_standard_library_would_be() {
    let mut random = Random::seeded(1);
    for _ in 0..200 {
        let (mut list, mut map) = (ByNode::new(), BTreeMap::new());
        for step in 0..50u64 {
            let node = NodeId(random.between(1, 8));
            match random.below(5) {
                0 => {
                    list.insert(node, step);
                    map.insert(node, step);
                }
                1 => {
                    list.remove(&node);
                    map.remove(&node);
                }
                2 => assert_eq!(list.or_insert_with(node, || step), map.entry(node).or_insert(step)),
                3 => {
                    list.retain(|id, value| *id != node || *value % 2 == 0);
                    map.retain(|id, value| *id != node || *value % 2 == 0);
                }
                _ => assert_eq!(
                    list.value_mut(&node).map(|value| *value += 1),
                    map.get_mut(&node).map(|value| *value += 1)
                ),
            }
            assert_eq!((list.value(&node), list.contains_key(&node)), (map.get(&node), map.contains_key(&node)));
            assert!(list.iter().eq(map.iter()) && list.values().eq(map.values()));
        }
        assert!(list.iter_mut().eq(map.iter_mut()));
    }
}
