//! Sessions of others that stand in the way of a promise.

use super::{SMALL, Sql, SqlError, within};

const END_CONFLICTS: &str = include_str!("end_conflicts.sql");
const END_IMPOSTORS: &str = include_str!("end_impostors.sql");
const END_REVOKED: &str = include_str!("end_revoked.sql");

impl Sql {
    /// Ends who streams under the standby's name without its slot; their roles.
    ///
    /// # Errors
    /// Postgres refused.
    pub async fn end_impostors(&self) -> Result<String, SqlError> {
        let query =
            async { self.login.open(None).await?.query_one(END_IMPOSTORS, &[&self.peer]).await?.try_get(0) };
        within("end who streams under the standby's name", SMALL, query).await
    }

    /// Ends the sessions whose client has shown a certificate with one of these serial numbers, in decimal digits; their roles.
    ///
    /// # Errors
    /// Postgres refused.
    pub async fn end_revoked(&self, serials: &[String]) -> Result<String, SqlError> {
        let query =
            async { self.login.open(None).await?.query_one(END_REVOKED, &[&serials]).await?.try_get(0) };
        within("end the sessions whose certificate is revoked", SMALL, query).await
    }

    /// Ends the sessions for which replay waits at this moment. How many.
    ///
    /// # Errors
    /// Postgres refused.
    pub async fn end_conflicts(&self) -> Result<i64, SqlError> {
        let action = "end the queries that replay waits for";
        let query = async { self.login.open(None).await?.query_one(END_CONFLICTS, &[]).await?.try_get(0) };
        within(action, SMALL, query).await
    }
}
