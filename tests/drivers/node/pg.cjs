// The `pg` of today with the face that its tests of version 4.5.7 know, the last that were published:
// queries are events, and there is one pool for each configuration.

const events = require('events')
const pg = require('pg')
const Pool = require('pg-pool')

class Client extends pg.Client {
  query(config, values, callback) {
    const isQuery = config && typeof config.submit === 'function'
    return super.query(isQuery ? config : new pg.Query(config, values, callback))
  }
}
Client.Query = pg.Query

const pools = new Map()
pg.defaults.poolSize = 10

const face = Object.assign(new events.EventEmitter(), {
  Client,
  Query: pg.Query,
  Connection: pg.Connection,
  defaults: pg.defaults,
  types: pg.types,

  connect(config, callback) {
    if (typeof config === 'function') return face.connect(undefined, config)
    const key = JSON.stringify(config ?? {})
    if (!pools.has(key)) {
      const options = typeof config === 'string' ? { connectionString: config } : config
      const pool = new Pool({ ...options, max: face.poolSize ?? pg.defaults.poolSize }, Client)
      pool.on('error', (error, client) => face.emit('error', error, client))
      pools.set(key, pool)
    }
    pools.get(key).connect((error, client, done) => callback(error ?? null, client, done))
  },

  end() {
    const ended = [...pools.values()].map((pool) => pool.end())
    pools.clear()
    Promise.all(ended).then(() => face.emit('end'))
  },

  cancel(config, client, query) {
    new Client(config).cancel(client, query)
  },
})

module.exports = face
