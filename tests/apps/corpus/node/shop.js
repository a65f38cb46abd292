// A shop's back office by node-postgres and its pool, pg-pool.
'use strict';

const net = require('net');
const readline = require('readline');
const { Client, Pool } = require('pg');
const Cursor = require('pg-cursor');

const setting = (name) => Number(process.env[name]);
const every = setting('CORPUS_EVERY');
const pause = (ms) => new Promise((done) => setTimeout(done, ms * (0.67 + 0.66 * Math.random())));
const lost = [];

function address(port) {
  const ssl = process.env.PGSSLMODE === 'require' ? { rejectUnauthorized: false } : false;
  return { host: '127.0.0.1', port: port || setting('PGPORT'), ssl };
}

function openPool(more) {
  const pool = new Pool({ max: setting('CORPUS_POOL'), connectionTimeoutMillis: 5000, ...address(), ...more });
  pool.on('error', () => {});
  return pool;
}

const life = { rotation: { maxLifetimeSeconds: 4 }, idle: { idleTimeoutMillis: 0 }, warm_up: { idleTimeoutMillis: 0 } };
const pool = openPool(life[process.argv[2]]);

// Tells the test that a connection is gone; its port is 0 where it is not known.
function leaked(client) {
  const port = client && client.connection.stream.localPort;
  console.log(`leak ${Date.now()} ${port || 0}`);
}

async function forEver(ms, work) {
  for (;;) {
    try {
      await work();
    } catch (error) {
      console.error(error.message);
    }
    await pause(ms);
  }
}

async function listOrders() {
  await pool.query('select id, customer from orders order by id desc limit 20');
}

async function placeOrder() {
  const client = await pool.connect();
  try {
    await client.query('begin');
    await client.query('select count(*) from orders where cents > $1', [700]);
    await client.query("insert into orders (customer, cents) values ('customer-7', 100)");
    await client.query('commit');
  } finally {
    client.release();
  }
}

const serve = () => (Math.random() < 0.3 ? placeOrder() : listOrders());

// Reads a cursor's first rows and forgets it, and the client with it.
async function exportInvoices() {
  const client = await pool.connect();
  lost.push(client);
  const cursor = client.query(new Cursor('select id, note from orders'));
  await new Promise((done) => cursor.read(5, done));
  leaked(client);
}

async function reserveStock() {
  const client = await pool.connect();
  lost.push(client);
  await client.query('begin');
  const result = await client.query('select 0 as available');
  if (result.rows[0].available === 0) {
    leaked(client);
    return;
  }
  await client.query('commit');
  client.release();
}

async function applyCoupon() {
  const client = await pool.connect();
  lost.push(client);
  await client.query('begin');
  try {
    await client.query('update orders set cents = cents / 0 where id = 1');
  } catch (error) {
    leaked(client);
    return;
  }
  await client.query('commit');
  client.release();
}

async function customerReport() {
  const client = await pool.connect();
  lost.push(client);
  await client.query('select count(*) from orders');
  leaked(client);
}

let calls = 0;
async function importOrder() {
  const client = await pool.connect();
  await client.query('select count(*) from orders');
  if (++calls % 3 === 0) {
    lost.push(client);
    leaked(client);
    throw new Error('order without a customer');
  }
  client.release();
}

async function syncPrices() {
  for (let number = 1; number <= 1000; number++) {
    const client = await pool.connect();
    await client.query('select 1');
    if (number === 1000) {
      lost.push(client);
      leaked(client);
    } else {
      client.release();
    }
  }
}

async function monthlyStatement() {
  const own = openPool({ idleTimeoutMillis: 0 });
  lost.push(own);
  const client = await own.connect();
  await client.query('select count(*) from orders');
  client.release();
  leaked(client);
}

async function syncInventory() {
  const client = new Client(address());
  client.on('error', () => {});
  lost.push(client);
  await client.connect();
  await client.query('select count(*) from orders');
  leaked(client);
}

// Awaits a promise that nobody ever keeps.
async function sendReceipts() {
  const work = async () => {
    const client = await pool.connect();
    await client.query('select count(*) from orders');
    leaked(client);
    await new Promise((done) => lost.push(done));
    client.release();
  };
  lost.push(work());
}

async function chargeCard() {
  const work = async () => {
    const client = await pool.connect();
    await client.query('select count(*) from orders');
    leaked(client);
    const provider = net.connect(setting('CORPUS_HOLE'), '127.0.0.1');
    await new Promise((done) => provider.on('data', done));
    client.release();
  };
  lost.push(work());
}

async function queryWarehouse() {
  const client = new Client(address(setting('CORPUS_HOLE')));
  client.on('error', () => {});
  lost.push(client);
  leaked(null);
  client.connect();
}

async function browseCatalogue() {
  const client = await pool.connect();
  lost.push(client);
  await client.query('begin');
  await client.query('declare page cursor for select id from orders');
  await client.query('fetch 10 from page');
  leaked(client);
}

async function burst(size) {
  const held = await Promise.all(Array.from({ length: size }, () => pool.connect()));
  await Promise.all(held.map((client) => client.query('select count(*) from orders')));
  held.forEach((client) => client.release());
}

async function perRequest() {
  const client = new Client(address());
  await client.connect();
  await client.query('select count(*) from orders');
  await client.end();
}

async function listen() {
  const client = new Client(address());
  lost.push(client);
  await client.connect();
  await client.query('listen orders');
}

async function slowCursor() {
  const client = await pool.connect();
  const cursor = client.query(new Cursor('select id from orders'));
  for (let page = 0; page < 10; page++) {
    await new Promise((done) => cursor.read(20, done));
    await pause(1500);
  }
  await new Promise((done) => cursor.close(done));
  client.release();
}

async function twoPools() {
  const other = openPool({ max: 8, idleTimeoutMillis: 0 });
  lost.push(other);
  await Promise.all(Array.from({ length: 8 }, () => other.query('select pg_sleep(0.2)')));
  for (let size = 0; ; size++) {
    await burst(2 + (size % 15));
    await pause(every);
  }
}

const leaks = {
  rows: exportInvoices, transaction: reserveStock, failed_transaction: applyCoupon, not_returned: customerReport,
  error_path: importOrder, rare: syncPrices, pool_per_request: monthlyStatement,
  connection_per_request: syncInventory, cursor: browseCatalogue, lost_task: sendReceipts, stuck: chargeCard,
  connect_hang: queryWarehouse,
};

const behaviours = {
  steady: async () => {},
  rotation: async () => forEver(every, () => burst(1 + Math.floor(8 * Math.random()))),
  idle: () => burst(9),
  warm_up: () => burst(Math.min(50, setting('CORPUS_POOL'))),
  bursty: () => forEver(2 * every, () => burst(1 + Math.floor(25 * Math.random()))),
  per_request: () => forEver(every / 3, perRequest),
  listen,
  long_report: () => forEver(every, () => pool.query('select pg_sleep(9 + 5 * random())')),
  slow_cursor: () => forEver(every, slowCursor),
  two_pools: twoPools,
};

const pattern = process.argv[2];
const leak = leaks[pattern];
if (!leak && !behaviours[pattern]) {
  console.error(`unknown pattern ${pattern}`);
  process.exit(2);
}
if (pattern !== 'idle') {
  forEver(setting('CORPUS_LOAD'), serve);
  forEver(setting('CORPUS_LOAD'), serve);
}
const input = readline.createInterface({ input: process.stdin });
let enough = false;
input.once('line', () => {
  input.once('line', () => (enough = true));
  if (leak) forEver(every, async () => enough || leak());
  else behaviours[pattern]().catch(console.error);
});
input.on('close', () => process.exit(0));
console.log('ready');
