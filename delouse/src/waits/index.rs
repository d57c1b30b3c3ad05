//! Numbers by key, without a list of its own for each key: of a million keys, these take longer to free than to make.

use super::ownership::Node;

/// The numbers of each key, in ascending order. Keys are numbers, too, counted from 0.
#[derive(Debug)]
struct Index {
    /// For each key, where its numbers begin; one more entry than there are keys.
    starts: Vec<u32>,
    numbers: Vec<u32>,
}

impl Index {
    /// `keys`: for each number, its key, or `None` to leave it out.
    fn of(keys: impl Iterator<Item = Option<u32>> + Clone) -> Self {
        let count = keys.clone().flatten().max().map_or(0, |last| last as usize + 1);
        let mut starts = vec![0_u32; count + 1];
        for key in keys.clone().flatten() {
            starts.get_mut(key as usize + 1).into_iter().for_each(|count| *count += 1);
        }
        let mut sum = 0;
        for start in &mut starts {
            sum += *start;
            *start = sum;
        }
        let mut next = starts.clone();
        let mut numbers = vec![0; sum as usize];
        for (number, key) in (0..).zip(keys) {
            let at = key.and_then(|key| next.get_mut(key as usize));
            if let Some(at) = at
                && let Some(place) = numbers.get_mut(*at as usize)
            {
                (*place, *at) = (number, *at + 1);
            }
        }
        Self { starts, numbers }
    }

    fn get(&self, key: u32) -> &[u32] {
        let key = key as usize;
        let range = self.starts.get(key).zip(self.starts.get(key + 1));
        range.and_then(|(from, to)| self.numbers.get(*from as usize..*to as usize)).unwrap_or_default()
    }
}

/// The numbers of each node, in ascending order.
#[derive(Debug)]
pub(super) struct NodeIndex {
    tasks: Index,
    parts: Index,
    objects: Index,
    statics: Vec<u32>,
}

impl NodeIndex {
    /// `nodes`: for each number, its node.
    pub(super) fn of(nodes: impl Iterator<Item = Node> + Clone) -> Self {
        let kind = |number: fn(Node) -> Option<u32>| Index::of(nodes.clone().map(number));
        let statics = (0..).zip(nodes.clone()).filter(|(_, node)| *node == Node::Statics);
        Self {
            tasks: kind(|node| if let Node::Task(task) = node { Some(task) } else { None }),
            parts: kind(|node| if let Node::Part(part) = node { Some(part) } else { None }),
            objects: kind(|node| if let Node::Object(object) = node { Some(object) } else { None }),
            statics: statics.map(|(number, _)| number).collect(),
        }
    }

    pub(super) fn get(&self, node: Node) -> &[u32] {
        match node {
            Node::Task(task) => self.tasks.get(task),
            Node::Part(part) => self.parts.get(part),
            Node::Object(object) => self.objects.get(object),
            Node::Statics => &self.statics,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_has_its_own() {
        let (one, other) = (Node::Task(3), Node::Object(3));
        let index = NodeIndex::of([one, other, Node::Statics, one, Node::Part(0)].into_iter());
        let expected = [(one, &[0, 3][..]), (other, &[1]), (Node::Statics, &[2]), (Node::Part(0), &[4])];
        expected.into_iter().for_each(|(node, numbers)| assert_eq!(index.get(node), numbers));
        for absent in [Node::Task(0), Node::Task(4), Node::Part(1), Node::Object(u32::MAX)] {
            assert_eq!(index.get(absent), [0_u32; 0]);
        }
        assert_eq!(NodeIndex::of(std::iter::empty()).get(Node::Statics), [0_u32; 0]);
    }
}
