//! The `gosync-server` program. Knows only the library that it starts.

fn main() {}
