//! Quarantine: what an application decides about a record in it.

use crate::store::{Changes, View, Write};
use gosync_proto::Key;

/// Has the record in quarantine under `key` offered to the server again: as a
/// write, with its version unchanged, so that the verdict is told like that of
/// any other. Nothing where there is none.
pub fn offer_again(view: &View, key: &Key) -> Changes {
    let Some(aside) = view.quarantine.get(key) else {
        return Changes::default();
    };
    let mut meta = view.meta.clone();
    let id = meta.number_writes(1);
    Changes {
        meta: Some(meta),
        remove_quarantine: vec![key.clone()],
        put_writes: vec![Write::new(id, aside.record.clone(), None)],
        ..Changes::default()
    }
}

/// Gives the record in quarantine under `key` up. Nothing where there is none.
pub fn drop(view: &View, key: &Key) -> Changes {
    Changes {
        remove_quarantine: Vec::from_iter(
            view.quarantine.get_key_value(key).map(|(k, _)| k.clone()),
        ),
        ..Changes::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Meta, Quarantined, WriteId};
    use gosync_proto::{Content, Record, ReplicaId, Time, Version};

    fn key(k: &str) -> Key {
        Key::new(k.as_bytes().to_vec()).unwrap()
    }

    fn aside() -> (View, Record) {
        let record = Record {
            key: key("k"),
            version: Version {
                time: Time(5),
                replica: ReplicaId(9),
            },
            content: Content::Put("v".into()),
        };
        let mut view = View {
            meta: Meta {
                next_write: 7,
                ..Meta::default()
            },
            ..View::default()
        };
        let quarantined = Quarantined::unwritable(record.clone());
        view.quarantine.insert(record.key.clone(), quarantined);
        (view, record)
    }

    #[test]
    fn what_is_offered_again_leaves_quarantine_and_is_pushed_as_it_was() {
        let (view, record) = aside();
        let changes = offer_again(&view, &key("k"));
        assert_eq!(changes.remove_quarantine, [key("k")]);
        let [write] = &changes.put_writes[..] else {
            panic!("{changes:?}")
        };
        assert_eq!((write.id, &write.record), (WriteId(7), &record));
        assert!(write.is_waiting());
        assert_eq!(changes.meta.unwrap().next_write, 8);
    }

    #[test]
    fn what_is_dropped_is_gone_and_what_is_not_there_changes_nothing() {
        let (view, _) = aside();
        assert_eq!(drop(&view, &key("k")).remove_quarantine, [key("k")]);
        assert!(drop(&view, &key("other")).is_empty());
        assert!(offer_again(&view, &key("other")).is_empty());
    }
}
