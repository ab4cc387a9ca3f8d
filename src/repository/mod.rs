//! pitr's own format: which objects there are, what is in them, and who may write them.

pub mod backup_set;
pub mod layout;
