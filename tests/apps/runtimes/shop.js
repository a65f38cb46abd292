// An order service like shop.c, by node-postgres: one command a line on stdin, one answer a line.
// `// LEAK name` marks the line that makes a handler's last request; tests look it up.
'use strict';

const readline = require('node:readline');
const { Pool } = require('pg');

const [host, port, user] = process.argv.slice(2);
const pool = new Pool({ host, port: Number(port), user, database: 'postgres', max: 40 });
const forgotten = [];
let stack = '';

// Healthy: ends its transaction and returns its connection.
async function listOrders() {
  const client = await pool.connect();
  await client.query('SELECT generate_series(1, 10)');
  client.release();
}

// Forgets to return its connection.
async function showInvoice() {
  const client = await pool.connect();
  forgotten.push(client);
  return askForInvoice(client);
}

// Asks at once, so that the stack of the request has its own name.
function askForInvoice(client) {
  return client.query("SELECT 'invoice'"); // LEAK return
}

// Forgets to end its transaction.
async function refundOrder() {
  const client = await pool.connect();
  forgotten.push(client);
  await client.query('BEGIN');
  stack = tellStack(); return client.query("SELECT 'refund'"); // LEAK transaction
}

// The calls on the stack, but for this one, innermost first. V8 adds those that await them.
function tellStack() {
  const prepare = Error.prepareStackTrace;
  Error.prepareStackTrace = (error, sites) => {
    const called = sites.slice(1).filter((site) => !site.isAsync());
    return called.map((site) => `${site.getFunctionName()}:${site.getLineNumber()}`).join('|');
  };
  const told = new Error().stack;
  Error.prepareStackTrace = prepare;
  return told;
}

// Refunds so many orders, and clears up behind itself.
async function warm(number) {
  for (let i = 0; i < number; i++) {
    await refundOrder();
    const client = forgotten.pop();
    await client.query('ROLLBACK');
    client.release();
  }
}

const handlers = { serve: listOrders, return: showInvoice, transaction: refundOrder };

async function obey(line) {
  const [command, number] = line.trim().split(' ');
  try {
    if (command === 'warm') await warm(Number(number));
    else for (let i = 0; i < Number(number || 1); i++) await handlers[command]();
    console.log(`ok open=${pool.totalCount} stack=${stack}`);
  } catch (error) {
    console.log(`failed ${String(error).replace(/\s+/g, ' ')}`);
  }
}

(async () => {
  for await (const line of readline.createInterface({ input: process.stdin })) await obey(line);
  process.exit(0);
})();
