// In place of the suite's own, which makes its users and its database first: here they are laid out by then.

import { spawnSync } from 'node:child_process'

export function exec(command, args) {
  const { status, error, stderr } = spawnSync(command, args, { encoding: 'utf8' })
  if (error || status !== 0) throw error ?? new Error(stderr)
}
