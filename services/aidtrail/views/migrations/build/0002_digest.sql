-- The digest of the status rows (aidtrail.views.digest), kept in the transaction that writes them. Null where an earlier release began the
-- build: a rebuild has one.

ALTER TABLE donations ADD COLUMN rows_sha256 bytea;   -- SHA-256 of this row and of those in amounts and approvals, in canonical form
ALTER TABLE positions ADD COLUMN rows_sum bytea;      -- the sum over the partition's donations: 512 bytes
ALTER TABLE positions ALTER COLUMN rows_sum SET DEFAULT decode(repeat('00', 512), 'hex');
UPDATE positions SET rows_sum = DEFAULT WHERE next_offset = 0;
