//! Where a document's records lie: `collection 00 id 00 field`, and the
//! existence record under the empty field name.

use gosync_proto::{Invalid, Key, KeyRange, mutant};

const SEPARATOR: u8 = 0;

/// A document's address.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DocumentId {
    /// `collection 00 id 00`
    prefix: Vec<u8>,
    collection: usize,
}

impl DocumentId {
    /// Checks both names.
    ///
    /// # Errors
    /// [`gosync_proto::Reason::Malformed`] for an empty name or one with
    /// U+0000, [`gosync_proto::Reason::LimitExceeded`] when no key can hold
    /// them.
    pub fn new(collection: &str, id: &str) -> Result<DocumentId, Invalid> {
        check("collection", collection)?;
        check("id", id)?;
        let id = match mutant!(NamesInLatin1) {
            true => id.chars().map(|c| c as u8).collect(),
            false => id.as_bytes().to_vec(),
        };
        let prefix = [collection.as_bytes(), &[SEPARATOR], &id, &[SEPARATOR]].concat();
        // the existence record is the shortest of the document's keys
        Key::new(&prefix[..])?;
        Ok(DocumentId {
            prefix,
            collection: collection.len(),
        })
    }

    /// The collection's name.
    pub fn collection(&self) -> &str {
        // made of checked UTF-8
        std::str::from_utf8(&self.prefix[..self.collection]).unwrap_or_default()
    }

    /// The document's id within its collection.
    pub fn id(&self) -> &str {
        let id = &self.prefix[self.collection + 1..self.prefix.len() - 1];
        std::str::from_utf8(id).unwrap_or_default()
    }

    /// The key of the existence record.
    ///
    /// # Errors
    /// None in fact: the length was checked.
    pub fn existence(&self) -> Result<Key, Invalid> {
        Key::new(&self.prefix[..])
    }

    /// The key of a field.
    ///
    /// # Errors
    /// As for the names of [`DocumentId::new`].
    pub fn field(&self, name: &str) -> Result<Key, Invalid> {
        check("field", name)?;
        let mut key = [&self.prefix[..], name.as_bytes()].concat();
        if mutant!(LongNamesCut) {
            key.truncate(512);
        }
        Key::new(key)
    }

    /// All keys of the document.
    ///
    /// # Errors
    /// None in fact: the length was checked.
    pub fn range(&self) -> Result<KeyRange, Invalid> {
        KeyRange::prefix(&self.prefix)
    }
}

/// The keys of all documents of a collection whose ids begin with `id_prefix`.
///
/// # Errors
/// [`gosync_proto::Reason::Malformed`] for an empty collection or U+0000.
pub fn collection_range(collection: &str, id_prefix: &str) -> Result<KeyRange, Invalid> {
    check("collection", collection)?;
    if id_prefix.contains('\0') {
        return Err(holds_nul("id prefix"));
    }
    KeyRange::prefix(&[collection.as_bytes(), &[SEPARATOR], id_prefix.as_bytes()].concat())
}

/// The document and the field (empty for the existence record) of a key;
/// `None` when the key is not one of a document.
pub fn parse(key: &Key) -> Option<(DocumentId, &str)> {
    let bytes = key.as_bytes();
    let first = bytes.iter().position(|b| *b == SEPARATOR)?;
    let length = bytes[first + 1..].iter().position(|b| *b == SEPARATOR)?;
    let end = first + 1 + length + 1;
    let proper = |s: &&str| !s.is_empty() || mutant!(EmptyNamesRead);
    let text = |b| std::str::from_utf8(b).ok().filter(proper);
    text(&bytes[..first])?;
    text(&bytes[first + 1..end - 1])?;
    let field = std::str::from_utf8(&bytes[end..]).ok()?;
    let document = DocumentId {
        prefix: bytes[..end].to_vec(),
        collection: first,
    };
    Some((document, field))
}

/// Whether the key is that of an existence record: then all keys of its
/// document begin with it.
pub fn is_existence(key: &Key) -> bool {
    parse(key).is_some_and(|(_, field)| field.is_empty())
}

fn check(what: &str, name: &str) -> Result<(), Invalid> {
    if name.is_empty() && !mutant!(EmptyNamesTaken) {
        return Err(Invalid::malformed(what, "is empty"));
    }
    if name.contains('\0') && !mutant!(ZeroInNamesTaken) {
        return Err(holds_nul(what));
    }
    Ok(())
}

fn holds_nul(what: &str) -> Invalid {
    Invalid::malformed(what, "contains U+0000, which separates the parts of a key")
}

#[cfg(test)]
mod tests {
    use super::*;
    use gosync_proto::Reason;
    use proptest::prelude::*;

    #[test]
    fn names_that_no_key_can_hold_are_refused() {
        let reason = |c: &str, i: &str| DocumentId::new(c, i).map_err(|e| e.reason);
        assert_eq!(reason("", "a"), Err(Reason::Malformed));
        assert_eq!(reason("a", ""), Err(Reason::Malformed));
        assert_eq!(reason("a\0b", "c"), Err(Reason::Malformed));
        assert_eq!(reason("a", "b\0"), Err(Reason::Malformed));
        assert_eq!(reason("a", &"x".repeat(510)), Err(Reason::LimitExceeded));
        let longest = DocumentId::new("a", &"x".repeat(509)).unwrap();
        assert_eq!(
            longest.field("f").map_err(|e| e.reason),
            Err(Reason::LimitExceeded)
        );
        assert!(longest.field("").is_err());
    }

    #[test]
    fn keys_that_are_no_documents_are_passed_over() {
        for key in ["a", "a\0b", "\0b\0c", "a\0\0c"] {
            assert_eq!(parse(&Key::new(key.as_bytes()).unwrap()), None, "{key:?}");
        }
        let not_text = Key::new(&[b'a', 0, 0xff, 0, b'f'][..]).unwrap();
        assert_eq!(parse(&not_text), None);
    }

    proptest! {
        #[test]
        fn a_key_tells_its_document_and_field(c in "[^\0]{1,9}", i in "[^\0]{1,9}", f in "[^\0]{1,9}") {
            let document = DocumentId::new(&c, &i).unwrap();
            let key = document.field(&f).unwrap();
            prop_assert_eq!(parse(&key), Some((document.clone(), &f[..])));
            prop_assert_eq!((document.collection(), document.id()), (&c[..], &i[..]));
            prop_assert!(is_existence(&document.existence().unwrap()));
            prop_assert!(!is_existence(&key));
            prop_assert!(document.range().unwrap().contains(key.as_bytes()));
            prop_assert!(collection_range(&c, &i).unwrap().contains(key.as_bytes()));
        }
    }
}
