use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn a_node_set_is_a_set(members in prop::collection::btree_set(0u8..64, 0..64), other in 0u8..64) {
        let set: NodeSet = members.iter().copied().map(NodeIndex).collect();
        prop_assert_eq!(set.is_empty(), members.is_empty());
        prop_assert_eq!(set.iter().map(|node| node.0).collect::<Vec<_>>(),
            members.iter().copied().collect::<Vec<_>>());
        prop_assert_eq!(set.contains(NodeIndex(other)), members.contains(&other));
        let listed = |set: NodeSet| set.iter().map(|node| node.0).collect::<BTreeSet<_>>();
        let mut more = members.clone();
        more.insert(other);
        prop_assert_eq!(listed(set.with(NodeIndex(other))), more);
        let mut fewer = members;
        fewer.remove(&other);
        prop_assert_eq!(listed(set.without(NodeIndex(other))), fewer);
    }
}

#[test]
fn an_observation_vouches_for_servers_that_are_older() {
    use super::super::testing::{at, seen};
    let seen = seen(Role::Replica, 5, 100);
    for (opened, vouched) in [(0, true), (100, true), (101, false)] {
        assert_eq!(seen.vouches_for(at(opened)), vouched, "opened at {opened}");
    }
}
