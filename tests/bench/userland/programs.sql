-- A small business: rows in one transaction, an index, joins and groups.
PRAGMA journal_mode = MEMORY;
CREATE TABLE parts (id INTEGER PRIMARY KEY, name TEXT, price REAL);
CREATE TABLE orders (id INTEGER PRIMARY KEY, part INTEGER, amount INTEGER, note TEXT);
BEGIN;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
INSERT INTO parts SELECT i, 'part ' || (i * 7919 % 2003), i * 13 % 997 / 10.0 FROM n;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40000)
INSERT INTO orders SELECT i, i * 48271 % 2000 + 1, i % 17 + 1, 'order of ' || i * 16807 % 65521 FROM n;
COMMIT;
CREATE INDEX orders_by_part ON orders(part, amount);
SELECT count(*), sum(amount * price) FROM orders JOIN parts ON parts.id = orders.part;
SELECT name, sum(amount) AS total FROM orders JOIN parts ON parts.id = part
    GROUP BY part ORDER BY total DESC, name LIMIT 20;
SELECT substr(note, 10, 2) AS head, count(*), avg(amount) FROM orders GROUP BY head ORDER BY head;
UPDATE orders SET amount = amount + 1 WHERE note LIKE '%77%';
DELETE FROM orders WHERE part % 5 = 0;
SELECT count(*), sum(amount), max(note) FROM orders;
PRAGMA integrity_check;
