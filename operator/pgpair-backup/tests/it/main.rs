//! Against a real PostgreSQL and a real `tar`.

mod backup;
mod postgres;
