"""Actor-critic: a rollout without gradients, then two losses, two optimizers, and a target network that follows slowly."""

import copy
import sys

import torch
from torch import nn

broken = "--broken" in sys.argv


class Agent:
    def __init__(self):
        self.actor = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 2))
        self.critic = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
        self.target = copy.deepcopy(self.critic)
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), lr=1e-3)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), lr=1e-3)

    def act(self, state):
        with torch.no_grad():
            return torch.distributions.Categorical(logits=self.actor(state)).sample()

    def rollout(self, length):
        states = [torch.randn(4)]
        actions, rewards = [], []
        for _ in range(length):
            actions.append(self.act(states[-1]))
            rewards.append(float(states[-1][0] > 0))
            states.append(states[-1] * 0.9 + torch.randn(4) * 0.1)
        return torch.stack(states), torch.stack(actions), torch.tensor(rewards)

    def update(self, states, actions, rewards):
        value = self.critic(states[:-1]).squeeze(-1)
        with torch.no_grad():
            goal = rewards + 0.99 * self.target(states[1:]).squeeze(-1)
        advantage = goal - value
        critic_loss = advantage.pow(2).mean()
        self.critic_optimizer.zero_grad()
        critic_loss.backward(retain_graph=broken)
        self.critic_optimizer.step()  # FXG205

        policy = torch.distributions.Categorical(logits=self.actor(states[:-1]))
        weight = advantage if broken else advantage.detach()
        actor_loss = -(policy.log_prob(actions) * weight).mean() - 0.01 * policy.entropy().mean()
        self.actor_optimizer.zero_grad()
        actor_loss.backward()
        self.actor_optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(self.target.parameters(), self.critic.parameters(), strict=True):
                slow.lerp_(fast, 0.05)
        return critic_loss.item(), actor_loss.item()


def main():
    torch.manual_seed(0)
    agent = Agent()
    for _ in range(3):
        print(agent.update(*agent.rollout(8)))


main()
