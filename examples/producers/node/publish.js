// Publishes the same kind of event in each of the four forms that dispatcherd reads. Node 20 or newer
// with kafkajs. The id is yours to choose: an event that you publish twice with one id is two
// deliveries, and receivers deduplicate by it.
'use strict';

const { randomUUID } = require('node:crypto');
const { Kafka, logLevel } = require('kafkajs');

// docs:start forms
/** An envelope: everything in the JSON. Receivers see it as it is. */
function plain(id, type, data) {
  return { value: JSON.stringify({ id, type, timestamp: new Date().toISOString(), data }) };
}

/** Bare data, as your topic may have it already; what it is stands in headers of the record. */
function headers(id, type, data) {
  return {
    value: JSON.stringify(data),
    headers: { 'webhook-id': id, 'webhook-type': type, 'webhook-version': '1' },
  };
}

/** CloudEvents 1.0, structured: everything in the JSON, under the names of that standard. */
function cloudevent(id, type, data) {
  return {
    value: JSON.stringify({
      specversion: '1.0', id, source: '/shop', type, time: new Date().toISOString(),
      datacontenttype: 'application/json', data,
    }),
    headers: { 'content-type': 'application/cloudevents+json' },
  };
}

/** CloudEvents 1.0, binary: bare data, the attributes as headers that begin with ce_. */
function cloudeventBinary(id, type, data) {
  return {
    value: JSON.stringify(data),
    headers: {
      ce_specversion: '1.0', ce_id: id, ce_source: '/shop', ce_type: type,
      ce_time: new Date().toISOString(), 'content-type': 'application/json',
    },
  };
}
// docs:end forms

const FORMS = { plain, headers, cloudevent, cloudevent_binary: cloudeventBinary };

async function main() {
  const brokers = (process.env.KAFKA_BOOTSTRAP_SERVERS ?? '127.0.0.1:9092').split(',');
  const kafka = new Kafka({ clientId: 'shop', brokers, logLevel: logLevel.ERROR });
  // Idempotence: a retry inside the client does not write the record twice.
  const producer = kafka.producer({ idempotent: true });
  await producer.connect();
  try {
    for (const [name, form] of Object.entries(FORMS)) {
      const id = `evt_${randomUUID().replaceAll('-', '')}`;
      const order = { order: `ord_${id.slice(-6)}`, total: 42, currency: 'EUR' };
      const message = { key: order.order, ...form(id, 'order.created', order) };
      // Publishing has happened when the broker has said so: await it.
      await producer.send({ topic: process.env.TOPIC ?? 'orders', acks: -1, messages: [message] });
      console.log(name, id);
    }
  } finally {
    await producer.disconnect();
  }
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
