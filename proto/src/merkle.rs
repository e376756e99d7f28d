//! The fingerprint of any set and range of records.
