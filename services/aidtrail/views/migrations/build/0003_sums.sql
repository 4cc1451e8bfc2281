-- One amount is a decimal(19,4), a sum of many may be more: what a reporter says of an observed donation is bounded by no pledge.

ALTER TABLE amounts
    ALTER COLUMN pledged TYPE numeric(38, 4), ALTER COLUMN approved TYPE numeric(38, 4), ALTER COLUMN in_flight TYPE numeric(38, 4),
    ALTER COLUMN settled TYPE numeric(38, 4), ALTER COLUMN returned TYPE numeric(38, 4), ALTER COLUMN passed_on TYPE numeric(38, 4),
    ALTER COLUMN held TYPE numeric(38, 4), ALTER COLUMN received TYPE numeric(38, 4), ALTER COLUMN acknowledged TYPE numeric(38, 4),
    ALTER COLUMN utilised TYPE numeric(38, 4);
