// Asks over HTTP/2 without pause, several requests at once on a connection, until its standard input ends; then says as
// JSON how many were answered, their ids and what failed: node multiplex.mjs PORT. A connection that the gateway says
// goodbye to is replaced by another; requests that were under way on it must be answered all the same. One that crosses
// the goodbye on its way is refused, which says that nobody has seen it: it is asked again (RFC 9113, 8.7).
import http2 from 'node:http2'

const AT_ONCE = 4
const port = process.argv[2]
const REFUSED = http2.constants.NGHTTP2_REFUSED_STREAM
const result = { answered: 0, refused: 0, goodbyes: 0, ids: [], failures: [] }
let ends = false
let session

function connection () {
  if (session && !session.closed && !session.destroyed && !session.leaving) return session
  const one = http2.connect(`https://127.0.0.1:${port}`, { rejectUnauthorized: false })
  one.on('goaway', () => { one.leaving = true; result.goodbyes++ })
  one.on('error', error => { one.leaving = true; if (!ends) result.failures.push(`connection: ${error}`) })
  session = one
  return one
}

function ask (stream) {
  return new Promise((resolve, reject) => {
    const request = connection().request({ ':method': 'POST', ':path': '/v1/chat/completions', 'content-type': 'application/json' })
    let head
    let text = ''
    request.setEncoding('utf8')
    request.on('response', headers => { head = headers })
    request.on('data', chunk => { text += chunk })
    request.on('error', error => reject(Object.assign(error, { refused: request.rstCode === REFUSED && !head })))
    request.on('close', () => {
      if (head?.[':status'] !== 200) reject(new Error(`status ${head?.[':status']}: ${text.slice(0, 200)}`))
      else if (stream && !text.endsWith('data: [DONE]\n\n')) reject(new Error('the stream was cut'))
      else resolve(head['x-gateway-request-id'])
    })
    request.end(JSON.stringify({ model: 'mock-small?chunks=10&delay_ms=50', messages: [], stream }))
  })
}

async function keepAsking (at) {
  while (!ends) {
    try {
      result.ids.push(await ask(at % 2 === 0))
      result.answered++
    } catch (error) {
      if (error.refused) {
        result.refused++
        session.leaving = true
      } else {
        result.failures.push(String(error))
      }
    }
  }
}

process.stdin.on('end', () => { ends = true })
process.stdin.resume()
await Promise.all(Array.from({ length: AT_ONCE }, (_, at) => keepAsking(at)))
session?.close()
console.log(JSON.stringify(result))
