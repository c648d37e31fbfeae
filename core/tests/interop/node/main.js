// Runs scenarios with the Node client `ali-ons`, and prints one JSON line for each.
//
//     --namesrv HOST:PORT SCENARIO... [--together SCENARIO...]
//
// Those after --together mostly wait: they run at the same time, when the others are done.
'use strict';

const { Consumer, Message, Producer } = require('ali-ons');

const DELIVERY_MS_MAX = 60_000;
// Below the silence that the harness endures.
const SCENARIO_MS_MAX = 150_000;
// What a busy machine makes of "on time".
const LATE_MS_MAX = 20_000;
// Silence after which nothing more is expected.
const QUIET_MS = 1_000;
const CLOSE_MS_MAX = 10_000;
const CALL_MS_MAX = 5_000;

// What the client would ask for NameServers, if it were not told where they are; it insists on having one.
const NO_HTTP = {
  request() {
    throw new Error('nobody was to be asked by HTTP');
  },
};

const sleep = ms => new Promise(resolve => setTimeout(resolve, ms));

function check(holds, message) {
  if (!holds) {
    throw new Error(message);
  }
}

async function within(ms, condition, otherwise) {
  const deadline = Date.now() + ms;
  while (!await condition()) {
    check(Date.now() < deadline, `not within ${ms} ms: ${otherwise()}`);
    await sleep(20);
  }
}

const bodyOf = key => `${key}\n` + 'zażółć 値 🚀 '.repeat(1 + key.length % 30);

// What came, by key, and when.
class Inbox {
  constructor() {
    this.arrivals = new Map();
    this.faults = [];
  }

  take(message) {
    const key = message.keys;
    if (message.body.toString() !== bodyOf(key)) {
      this.faults.push(`${key} has another body than was sent`);
    }
    this.arrivals.set(key, [ ...this.of(key), { at: Date.now(), times: message.reconsumeTimes, message } ]);
  }

  of(key) {
    return this.arrivals.get(key) || [];
  }

  count() {
    return [ ...this.arrivals.values() ].reduce((sum, list) => sum + list.length, 0);
  }

  async awaitAll(keys) {
    const missing = () => keys.filter(key => !this.arrivals.has(key));
    await within(DELIVERY_MS_MAX, () => missing().length === 0, () => `missing: ${missing().slice(0, 5)}`);
    check(this.faults.length === 0, this.faults.join('; '));
  }

  // Each once, and nothing else.
  async awaitExactly(keys) {
    await this.awaitAll(keys);
    for (let before = -1; before !== this.count(); await sleep(QUIET_MS)) {
      before = this.count();
    }
    for (const key of keys) {
      check(this.of(key).length === 1, `${key} came ${this.of(key).length} times`);
    }
    check(this.arrivals.size === keys.length, `came though not owed: ${[ ...this.arrivals.keys() ].filter(k => !keys.includes(k)).slice(0, 5)}`);
  }
}

// The clients of one scenario, with names that no other run uses.
class World {
  constructor(namesrv, prefix) {
    this.namesrv = namesrv;
    this.prefix = prefix;
    this.names = 0;
    this.clients = [];
  }

  name(kind) {
    return `${this.prefix}-${kind}-${++this.names}`;
  }

  // A client's id is made of the process's and its unit's name: each is a client of its own.
  options(more) {
    const quiet = { debug() {}, info() {}, warn() {}, error: console.error };
    return { nameSrv: this.namesrv, httpclient: NO_HTTP, unitName: this.name('unit'), logger: quiet, ...more };
  }

  async producer() {
    const producer = new Producer(this.options({ producerGroup: this.name('producer'), sendMsgTimeout: 10_000 }));
    producer.on('error', console.error);
    this.clients.push(producer);
    await producer.ready();
    return producer;
  }

  // On every broker, by a call that the client has and does not offer: it sends to no topic that is not there.
  async topic(producer) {
    const topicName = this.name('topic');
    const client = producer._mqClient;
    const { brokerDatas } = await client.getTopicRouteInfoFromNameServer('TBW102', CALL_MS_MAX);
    for (const { brokerAddrs } of brokerDatas) {
      const config = { topicName, readQueueNums: 4, writeQueueNums: 4, perm: 6, topicFilterType: 'SINGLE_TAG', topicSysFlag: 0, order: false };
      await client.createTopic(brokerAddrs[0], 'TBW102', config, CALL_MS_MAX);
    }
    return topicName;
  }

  async consumer(group, topic, expression, take, more) {
    const options = { consumerGroup: group, consumeFromWhere: 'CONSUME_FROM_FIRST_OFFSET', rebalanceInterval: 2_000, ...more };
    const consumer = new Consumer(this.options(options));
    consumer.on('error', console.error);
    this.clients.push(consumer);
    consumer.subscribe(topic, expression, async message => take(message));
    await consumer.ready();
    return consumer;
  }

  async close() {
    for (const client of this.clients.reverse()) {
      await Promise.race([ client.close().catch(console.error), sleep(CLOSE_MS_MAX) ]);
    }
  }
}

async function send(producer, topic, key, decorate) {
  const message = new Message(topic, '', bodyOf(key));
  message.keys = [ key ];
  if (decorate) {
    decorate(message);
  }
  const result = await producer.send(message);
  check(result.sendStatus === 'SEND_OK', `status of a send: ${JSON.stringify(result)}`);
  return result;
}

const keysOf = (prefix, count) => Array.from({ length: count }, (_, i) => `${prefix}-${i}`);

const scenarios = {
  async sync(world) {
    const producer = await world.producer();
    const topic = await world.topic(producer);
    const inbox = new Inbox();
    await world.consumer(world.name('group'), topic, '*', m => inbox.take(m));
    const keys = keysOf('sync', 1_000);
    for (const key of keys) {
      await send(producer, topic, key);
    }
    await inbox.awaitExactly(keys);
    return `${keys.length} sent, each received once`;
  },

  async async(world) {
    const producer = await world.producer();
    const topic = await world.topic(producer);
    const inbox = new Inbox();
    await world.consumer(world.name('group'), topic, '*', m => inbox.take(m));
    const keys = keysOf('async', 2_000);
    for (let i = 0; i < keys.length; i += 100) {
      await Promise.all(keys.slice(i, i + 100).map(key => send(producer, topic, key)));
    }
    await inbox.awaitExactly(keys);
    return `${keys.length} sent, 100 at a time, each received once`;
  },

  async clustering(world) {
    const producer = await world.producer();
    const topic = await world.topic(producer);
    const group = world.name('group');
    const all = new Inbox();
    const counts = [ 0, 0 ];
    for (const i of [ 0, 1 ]) {
      await world.consumer(group, topic, '*', m => {
        counts[i]++;
        all.take(m);
      });
    }
    const sent = [];
    await within(DELIVERY_MS_MAX, async () => {
      for (let i = 0; i < 20; i++) {
        sent.push(`share-${sent.length}`);
        await send(producer, topic, sent[sent.length - 1]);
      }
      return counts.every(count => count > 20);
    }, () => `shares: ${counts}`);
    await all.awaitAll(sent);
    return `${sent.length} messages, shares ${counts}`;
  },

  async broadcast(world) {
    const producer = await world.producer();
    const topic = await world.topic(producer);
    const group = world.name('group');
    const inboxes = [ new Inbox(), new Inbox() ];
    for (const inbox of inboxes) {
      await world.consumer(group, topic, '*', m => inbox.take(m), { isBroadcast: true });
    }
    const keys = keysOf('broadcast', 300);
    for (const key of keys) {
      await send(producer, topic, key);
    }
    for (const inbox of inboxes) {
      await inbox.awaitExactly(keys);
    }
    return `${keys.length} messages, each received once by each of two`;
  },

  async tag_filter(world) {
    const producer = await world.producer();
    const topic = await world.topic(producer);
    const inbox = new Inbox();
    await world.consumer(world.name('group'), topic, 'TagA || Aa', m => inbox.take(m));
    const tags = [ 'TagA', 'TagB', 'Aa', 'BB' ];
    const keys = keysOf('tag', 400);
    for (const [ i, key ] of keys.entries()) {
      await send(producer, topic, key, m => { m.tags = tags[i % 4]; });
    }
    const wanted = keys.filter((_, i) => i % 2 === 0);
    await inbox.awaitExactly(wanted);
    return `${wanted.length} of ${keys.length} messages`;
  },

  async sql_filter(world) {
    const producer = await world.producer();
    const topic = await world.topic(producer);
    const inbox = new Inbox();
    const expression = { expressionType: 'SQL92', subString: 'n BETWEEN 100 AND 149 AND colour IN (\'red\')' };
    await world.consumer(world.name('group'), topic, expression, m => inbox.take(m));
    const keys = keysOf('sql', 300);
    for (const [ i, key ] of keys.entries()) {
      await send(producer, topic, key, m => Object.assign(m.properties, { n: String(i), colour: i % 2 ? 'blue' : 'red' }));
    }
    const wanted = keys.filter((_, i) => i >= 100 && i < 150 && i % 2 === 0);
    await inbox.awaitExactly(wanted);
    return `${wanted.length} of ${keys.length} messages`;
  },

  async resume(world) {
    const producer = await world.producer();
    const topic = await world.topic(producer);
    const group = world.name('group');
    const [ first, second ] = [ new Inbox(), new Inbox() ];
    const consumer = await world.consumer(group, topic, '*', m => first.take(m));
    const early = keysOf('early', 300);
    for (const key of early) {
      await send(producer, topic, key);
    }
    await first.awaitExactly(early);
    // It commits every five seconds.
    await sleep(6_000);
    world.clients.splice(world.clients.indexOf(consumer), 1);
    await consumer.close();
    const late = keysOf('late', 300);
    for (const key of late) {
      await send(producer, topic, key);
    }
    await world.consumer(group, topic, '*', m => second.take(m));
    await second.awaitExactly(late);
    return `${early.length} by one consumer, the next ${late.length} by its successor`;
  },

  async create_topic(world) {
    const producer = await world.producer();
    const topic = await world.topic(producer);
    const inbox = new Inbox();
    const keys = keysOf('create', 100);
    for (const key of keys) {
      await send(producer, topic, key);
    }
    await world.consumer(world.name('group'), topic, '*', m => inbox.take(m));
    await inbox.awaitExactly(keys);
    return 'made by request, with four queues on each broker';
  },

  async properties(world) {
    const producer = await world.producer();
    const topic = await world.topic(producer);
    const inbox = new Inbox();
    await world.consumer(world.name('group'), topic, '*', m => inbox.take(m));
    const wanted = { 'ünïcödé-ключ': 'значение 値 🚀', json: '{"a":[1,"\\\\"]}', lines: 'one\r\ntwo', long: 'x'.repeat(8_000) };
    const sent = await send(producer, topic, 'decorated', m => {
      m.tags = 'Tag';
      Object.assign(m.properties, wanted);
    });
    await inbox.awaitExactly([ 'decorated' ]);
    const { message } = inbox.of('decorated')[0];
    check(message.tags === 'Tag', `tags ${message.tags}`);
    check(message.msgId === sent.msgId, `unique id ${sent.msgId} came as ${message.msgId}`);
    for (const [ key, value ] of Object.entries(wanted)) {
      check(message.properties[key] === value, `property ${key} came as ${message.properties[key]}`);
    }
    return 'body, tags, keys, id and properties';
  },

  async delay_level(world) {
    const producer = await world.producer();
    const topic = await world.topic(producer);
    const inbox = new Inbox();
    await world.consumer(world.name('group'), topic, '*', m => inbox.take(m));
    const due = new Map();
    for (const [ level, seconds ] of [ [ 0, 0 ], [ 1, 1 ], [ 2, 5 ], [ 3, 10 ] ]) {
      for (const key of keysOf(`level-${level}`, 5)) {
        due.set(key, Date.now() + seconds * 1_000);
        await send(producer, topic, key, m => {
          if (level > 0) {
            m.delayTimeLevel = level;
          }
        });
      }
    }
    await inbox.awaitExactly([ ...due.keys() ]);
    const late = [ ...due ].map(([ key, at ]) => inbox.of(key)[0].at - at).sort((a, b) => a - b);
    check(late[0] >= 0, `${-late[0]} ms early`);
    check(late[late.length - 1] < LATE_MS_MAX, `${late[late.length - 1]} ms late`);
    return `late by ${late[late.length >> 1]} ms in the middle, ${late[late.length - 1]} ms at most`;
  },

  async retry(world) {
    const producer = await world.producer();
    const topic = await world.topic(producer);
    const inbox = new Inbox();
    await world.consumer(world.name('group'), topic, '*', message => {
      inbox.take(message);
      check(!message.keys.startsWith('again') || message.reconsumeTimes > 0, 'the application fails');
    });
    const again = keysOf('again', 5);
    const good = keysOf('good', 5);
    for (const key of [ ...again, ...good ]) {
      await send(producer, topic, key);
    }
    await within(DELIVERY_MS_MAX, () => again.every(key => inbox.of(key).length === 2),
      () => `came: ${again.map(key => inbox.of(key).length)}`);
    await inbox.awaitAll(good);
    for (const key of again) {
      const [ first, second ] = inbox.of(key);
      check(second.times === 1, `${key} came with ${second.times} attempts behind it`);
      check(second.at - first.at >= 9_900, `${key} came again after ${second.at - first.at} ms`);
    }
    check(good.every(key => inbox.of(key).length === 1), 'a message came again that was consumed');
    return `${again.length} messages again after ten seconds`;
  },
};

async function run(name, world) {
  const begun = Date.now();
  const line = { scenario: name };
  try {
    if (scenarios[name]) {
      const late = sleep(SCENARIO_MS_MAX).then(() => { throw new Error(`did not end within ${SCENARIO_MS_MAX} ms`); });
      line.detail = await Promise.race([ scenarios[name](world), late ]);
      line.ok = true;
    } else {
      line.lacks = 'the client has no such call';
    }
  } catch (failure) {
    console.error(failure);
    Object.assign(line, { ok: false, detail: String(failure.message || failure) });
  }
  await world.close();
  line.seconds = (Date.now() - begun) / 1_000;
  console.log(JSON.stringify(line));
}

async function main() {
  const [ flag, namesrv, ...names ] = process.argv.slice(2);
  if (flag !== '--namesrv' || names.length === 0) {
    console.error('--namesrv HOST:PORT SCENARIO... [--together SCENARIO...]');
    process.exit(2);
  }
  const runId = Date.now().toString(36);
  const at = names.includes('--together') ? names.indexOf('--together') : names.length;
  const start = name => run(name, new World(namesrv, `${name}-${runId}`));
  for (const name of names.slice(0, at)) {
    await start(name);
  }
  await Promise.all(names.slice(at + 1).map(start));
  // The client's timers do not end by themselves.
  process.exit(0);
}

main();
