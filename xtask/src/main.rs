//! Every command of the project, in one place.
fn main() {}
