"""Schema migrations, run by alembic inside one transaction; rtb.adapters.sql_schema drives them."""
