//! Promise 5: the last write commits. Whatever ends a backup before it, and wherever, leaves nothing that is listed as one,
//! nothing on the server, and nothing in the way of the next; what is listed is whole by PostgreSQL's own judgement.

mod ended;
mod faulty_store;
